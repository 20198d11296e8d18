"""Every error that SEAL raises on purpose, and the one table that maps the classes outwards.

They are split by what the caller does about it:

    fix the request        InvalidInput         retry later, nothing is wrong   Exhausted, Transient
    name something else    NotFound             report it                       Internal
    give it a new id       Conflict             bring about the state first     PreconditionFailed

A message names the field or file; `remedy` says what to do. The table holds the gRPC code by name,
so that the pure parts of the project can raise these errors without importing gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from seal.outcomes import Outcome


class SealError(Exception):
    """Root. `str(error)` is the message followed by the remedy."""

    retry_after_seconds: float | None = None
    """When the same call may succeed; None where no time is known."""

    def __init__(self, message: str, *, remedy: str = "", field: str = "", **details: str) -> None:
        """`field`: dotted path of the offending field as the caller wrote it.

        `details`: short facts for programs, never document text.
        """
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.field = field
        self.details = details

    def __str__(self) -> str:
        """Message and remedy."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class InvalidInput(SealError, ValueError):
    """What was handed in is wrong, and will be wrong again."""


class UnfitItem(InvalidInput):
    """One item's own content is at fault: who has the item records the outcome, nobody else pays.

    Services answer it as a result with this outcome, never as the error of a call.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        remedy: str = "",
        field: str = "",
        places: Sequence[int] = (),
    ) -> None:
        """`places`: of several items in a request, the indexes of those at fault.

        Empty where none is named: the request has one item, or all of them together are at fault.
        """
        super().__init__(message, remedy=remedy, field=field, outcome=str(outcome))
        self.outcome = outcome
        self.places = tuple(places)


class AccessDenied(InvalidInput):
    """A store does not let these credentials in."""


class NotFound(SealError, LookupError):
    """What was named does not exist."""


class Conflict(SealError):
    """It exists already and is something else."""


class Superseded(Conflict):
    """A newer controller has started the same work: this attempt of it counts no more."""


class PreconditionFailed(SealError):
    """The request is well formed, but the state of things forbids it.

    For example an adapter that changes nothing.
    """


class Retryable(SealError):
    """The same call may succeed later. Base of the two classes below; not raised itself."""

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        field: str = "",
        retry_after_seconds: float | None = None,
        **details: str,
    ) -> None:
        super().__init__(message, remedy=remedy, field=field, **details)
        self.retry_after_seconds = retry_after_seconds


class Exhausted(Retryable):
    """A queue, quota or disk is full."""


class Transient(Retryable):
    """Something that is needed is away for the moment."""


class Internal(SealError):
    """An invariant broke: a defect, or data that was altered behind our back."""


@dataclass(frozen=True)
class ErrorClass:
    """How one class looks from outside."""

    grpc_code: str
    """Name of the gRPC status code."""
    exit_code: int
    """Exit status of a process: 2 what was given is wrong, 42 permanent, 43 retry (0 is success; 1
    is an error of no class here)."""
    reason: str
    """CamelCase reason in conditions and google.rpc.ErrorInfo. It is API."""


ERROR_CLASSES: Mapping[type[SealError], ErrorClass] = MappingProxyType(
    {
        InvalidInput: ErrorClass("INVALID_ARGUMENT", 2, "InvalidInput"),
        NotFound: ErrorClass("NOT_FOUND", 2, "NotFound"),
        Conflict: ErrorClass("ALREADY_EXISTS", 2, "Conflict"),
        PreconditionFailed: ErrorClass("FAILED_PRECONDITION", 42, "PreconditionFailed"),
        Exhausted: ErrorClass("RESOURCE_EXHAUSTED", 43, "Exhausted"),
        Transient: ErrorClass("UNAVAILABLE", 43, "Transient"),
        Internal: ErrorClass("INTERNAL", 42, "Internal"),
    }
)

PERMANENT_EXIT_CODES = tuple(
    sorted(
        {row.exit_code for kind, row in ERROR_CLASSES.items() if not issubclass(kind, Retryable)}
    )
)
"""Of processes whose next attempt would end the same way."""
RETRY_EXIT_CODE = ERROR_CLASSES[Transient].exit_code
"""Of processes that are worth another attempt."""
SUPERSEDED = "Superseded"
"""Reason of an attempt that a newer controller has begun anew; it is no fault of the stage."""

_FOREIGN_CODES: Mapping[str, type[SealError]] = MappingProxyType(
    {
        "OUT_OF_RANGE": InvalidInput,
        "UNIMPLEMENTED": InvalidInput,
        "PERMISSION_DENIED": PreconditionFailed,
        "UNAUTHENTICATED": PreconditionFailed,
        "ABORTED": Transient,
        "CANCELLED": Transient,
        "DEADLINE_EXCEEDED": Transient,
    }
)
"""Codes that SEAL's own table never sends but gRPC, proxies and other servers do."""


def error_class(error: SealError | type[SealError]) -> ErrorClass:
    """Row of the table for an error or its class.

    Subclasses of a listed class share its row, the root itself counts as Internal.
    """
    kind = error if isinstance(error, type) else type(error)
    return next(
        (ERROR_CLASSES[base] for base in kind.__mro__ if base in ERROR_CLASSES),
        ERROR_CLASSES[Internal],
    )


def error_class_for_code(code: str) -> type[SealError]:
    """Class for the name of a gRPC status code, the inverse of the table.

    A code that says nothing (UNKNOWN, DATA_LOSS) is Internal.
    """
    for kind, row in ERROR_CLASSES.items():
        if row.grpc_code == code:
            return kind
    return _FOREIGN_CODES.get(code, Internal)


def principal_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that decides what happens next.

    One that no retry mends goes before one that a retry may mend.
    """
    errors = _leaves(group)
    permanent = [error for error in errors if not isinstance(error, Retryable)]
    return (permanent or errors)[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
