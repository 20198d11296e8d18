"""Errors across the wire.

A SealError becomes a google.rpc.Status with ErrorInfo, BadRequest and RetryInfo, and the same
SealError again. What the status says in words is `message; remedy`, so that any client shows both.
Everything is cut to a length that fits into HTTP/2 headers (8 KiB by default): a status that does
not fit would replace the error by a protocol error.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Protocol

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError

from seal.errors import (
    ERROR_CLASSES,
    InvalidInput,
    Retryable,
    SealError,
    UnfitItem,
    error_class,
    error_class_for_code,
)
from seal.outcomes import Outcome

DOMAIN = "seal.dev"
"""Domain of our ErrorInfo."""
STATUS_KEY = "grpc-status-details-bin"
"""Trailing metadata key of the rich status."""
MAX_MESSAGE_BYTES = 1200
MAX_REMEDY_BYTES = 400
MAX_DETAIL_BYTES = 120
MAX_DETAILS = 4

_SEPARATOR = "; "
_TOO_LARGE = "larger than max"
"""In gRPC's own words about a message over the limit of either side."""
_ELLIPSIS = "..."
_CLASSES = MappingProxyType({row.reason: kind for kind, row in ERROR_CLASSES.items()})
_REMEDIES = MappingProxyType(
    {
        "UNAVAILABLE": "check that the service runs at this address, then try again",
        "DEADLINE_EXCEEDED": "try again, with a longer deadline if the work is large",
        "CANCELLED": "send the same request again",
        "UNIMPLEMENTED": "use a client and a service of the same version",
        "UNAUTHENTICATED": "give a valid token",
        "PERMISSION_DENIED": "ask for the permission that the message names",
    }
)
"""What to do about errors that gRPC itself or a proxy made."""


def to_status(error: SealError) -> status_pb2.Status:
    """Rich status of an error."""
    row = error_class(error)
    message, remedy = _cut(error.message, MAX_MESSAGE_BYTES), _cut(error.remedy, MAX_REMEDY_BYTES)
    field = _cut(error.field, MAX_DETAIL_BYTES)
    status = status_pb2.Status(
        code=grpc.StatusCode[row.grpc_code].value[0],
        message=f"{message}{_SEPARATOR}{remedy}" if remedy else message,
    )
    details = {
        name: _cut(value, MAX_DETAIL_BYTES)
        for name, value in list(error.details.items())[:MAX_DETAILS]
    }
    info = error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=details)
    info.metadata.update(
        {name: value for name, value in (("remedy", remedy), ("field", field)) if value}
    )
    status.details.add().Pack(info)
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=_cut(message, MAX_DETAIL_BYTES)
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: status_pb2.Status) -> SealError:
    """The error that a status was made from.

    A status of another server becomes the class of its code.
    """
    code = next((code.name for code in grpc.StatusCode if code.value[0] == status.code), "UNKNOWN")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    if info.domain != DOMAIN:
        return _foreign(code, status.message)
    metadata = dict(info.metadata)
    remedy, field = metadata.pop("remedy", ""), metadata.pop("field", "")
    kind = _CLASSES.get(info.reason, error_class_for_code(code))
    error = kind(
        status.message.removesuffix(_SEPARATOR + remedy) if remedy else status.message,
        remedy=remedy,
        field=field,
        **metadata,
    )
    if isinstance(error, Retryable) and retry.HasField("retry_delay"):
        error.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
    return error


class FailedCall(Protocol):
    """What a failed call tells, blocking or not; gRPC's own type of the former does not say it."""

    def code(self) -> grpc.StatusCode:
        """Its status."""

    def details(self) -> str | None:
        """The status in words."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What came with the status."""


def from_rpc_error(error: FailedCall) -> SealError:
    """The error behind a failed call; the caller raises it `from error`."""
    code, words = error.code().name, error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
            if status.code == error.code().value[0]:
                return from_status(status)
    return _foreign(code, words)


def from_validation_error(error: ValidationError) -> InvalidInput:
    """A pydantic error as InvalidInput, without the values it was about: those may be documents."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return InvalidInput(
        f"{field or error.title}: {first['msg']}", field=field, remedy="correct the value"
    )


def _foreign(code: str, words: str) -> SealError:
    message = _cut(words, MAX_MESSAGE_BYTES) or f"the call ended with {code}"
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in words:
        # The same message is refused again, however long one waits
        return UnfitItem(message, outcome=Outcome.TOO_LONG, remedy="ask for less at once")
    return error_class_for_code(code)(message, remedy=_REMEDIES.get(code, ""))


def _cut(text: str, limit: int) -> str:
    """Text of at most `limit` bytes as an HTTP/2 header counts them.

    What is not plain ASCII is percent-encoded, three bytes for one.
    """
    size, end, plain = 0, 0, text.encode("utf-8", "replace").decode()
    for index, character in enumerate(plain[: limit + 1]):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size <= limit - len(_ELLIPSIS):
            end = index + 1
        if size > limit:
            return plain[:end] + _ELLIPSIS
    return plain
