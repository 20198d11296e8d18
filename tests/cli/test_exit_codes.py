"""Exit codes of runs and adaptations that fail: those of the errors table, whatever the stage."""

from __future__ import annotations

import pytest

from controller_svc.cli.exit_codes import failed_code
from controller_svc.core import Reason
from seal.errors import ERROR_CLASSES, ErrorClass


@pytest.mark.parametrize("row", ERROR_CLASSES.values(), ids=lambda row: row.reason)
def test_an_error_that_ended_a_stage_has_the_code_that_it_has_anywhere(row: ErrorClass) -> None:
    assert failed_code(row.reason) == row.exit_code


@pytest.mark.parametrize(
    ("reason", "code"), [(Reason.ATTEMPTS_EXHAUSTED, 43), (Reason.TOO_FEW_SCORES, 42), ("", 42)]
)
def test_other_ends_are_worth_a_retry_only_where_the_attempts_ran_out(
    reason: str, code: int
) -> None:
    assert failed_code(reason) == code
