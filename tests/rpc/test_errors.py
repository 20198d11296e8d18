"""Errors: split by what the caller does, and mapped outwards by one table."""

from __future__ import annotations

import copy
import pickle

import pytest

from seal.errors import (
    ERROR_CLASSES,
    Conflict,
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
    error_class,
    error_class_for_code,
)


def test_the_text_of_an_error_is_its_message_and_its_remedy() -> None:
    assert (
        str(InvalidInput("edit.k: 0 is too small", remedy="give at least 1"))
        == "edit.k: 0 is too small; give at least 1"
    )
    assert str(NotFound("no run 'a'")) == "no run 'a'"


@pytest.mark.parametrize(
    ("kind", "code", "exit_code", "reason"),
    [
        (InvalidInput, "INVALID_ARGUMENT", 2, "InvalidInput"),
        (NotFound, "NOT_FOUND", 2, "NotFound"),
        (Conflict, "ALREADY_EXISTS", 2, "Conflict"),
        (PreconditionFailed, "FAILED_PRECONDITION", 42, "PreconditionFailed"),
        (Exhausted, "RESOURCE_EXHAUSTED", 43, "Exhausted"),
        (Transient, "UNAVAILABLE", 43, "Transient"),
        (Internal, "INTERNAL", 42, "Internal"),
    ],
)
def test_every_class_has_one_code_one_exit_status_and_one_reason(
    kind: type[SealError], code: str, exit_code: int, reason: str
) -> None:
    row = error_class(kind("what happened"))
    assert (row.grpc_code, row.exit_code, row.reason) == (code, exit_code, reason)
    assert error_class_for_code(code) is kind


def test_codes_and_reasons_are_unique_and_the_table_cannot_be_changed() -> None:
    assert len({row.grpc_code for row in ERROR_CLASSES.values()}) == len(ERROR_CLASSES)
    assert len({row.reason for row in ERROR_CLASSES.values()}) == len(ERROR_CLASSES)
    with pytest.raises(TypeError):
        ERROR_CLASSES[SealError] = ERROR_CLASSES[Internal]  # type: ignore[index]


def test_a_subclass_shares_the_row_of_its_parent() -> None:
    class QueueFull(Exhausted):
        pass

    assert error_class(QueueFull) is ERROR_CLASSES[Exhausted]


def test_the_root_counts_as_internal() -> None:
    assert error_class(SealError("what")) is ERROR_CLASSES[Internal]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("DEADLINE_EXCEEDED", Transient),
        ("CANCELLED", Transient),
        ("ABORTED", Transient),
        ("PERMISSION_DENIED", PreconditionFailed),
        ("UNAUTHENTICATED", PreconditionFailed),
        ("OUT_OF_RANGE", InvalidInput),
        ("UNKNOWN", Internal),
        ("NO_SUCH_CODE", Internal),
    ],
)
def test_codes_of_other_servers_have_a_class_too(code: str, kind: type[SealError]) -> None:
    assert error_class_for_code(code) is kind


def test_input_errors_are_value_errors_and_missing_things_lookup_errors() -> None:
    with pytest.raises(ValueError, match="too small"):
        raise InvalidInput("too small")
    with pytest.raises(LookupError, match="gone"):
        raise NotFound("gone")


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_crosses_a_process_boundary_unchanged(duplicate: object) -> None:
    error = Exhausted(
        "queue is full", remedy="try again", field="slots", retry_after_seconds=2.5, queue="train"
    )
    again = duplicate(error)  # type: ignore[operator]
    assert type(again) is Exhausted and str(again) == str(error)
    assert (again.field, again.retry_after_seconds, again.details) == (
        "slots",
        2.5,
        {"queue": "train"},
    )
