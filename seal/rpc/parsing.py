"""Requests that are none: refused like any other wrong input, within their call."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from seal.errors import InvalidInput


def never_failing(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | InvalidInput]:
    """Parses requests; the error for what is none is raised by its call.

    Raised here it would be gRPC's own: UNKNOWN, without a reason.
    """

    def parsed(data: bytes) -> Message | InvalidInput:
        try:
            return parse(data)
        except DecodeError:
            return InvalidInput(
                "the request is no message of this method",
                remedy="make it with stubs of the same version of proto/; strings are UTF-8",
            )

    return parsed


def well_formed(request: Any) -> Any:
    """A parsed request, or the stream of them. Raises InvalidInput for what could not be parsed."""
    if isinstance(request, InvalidInput):
        raise request
    return _stream(request) if isinstance(request, AsyncIterable) else request


async def _stream(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield well_formed(request)
