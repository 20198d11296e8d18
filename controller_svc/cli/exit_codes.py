"""The exit code of a command whose run or adaptation failed: as if the cause had been its own."""

from __future__ import annotations

from controller_svc.core import Reason
from seal.errors import ERROR_CLASSES, Internal, Transient


def failed_code(reason: str) -> int:
    """The code for the reason of a condition `Failed`: that of the error which ended a stage.

    What failed as often as it may was worth a retry each time; any other end of its own, and an
    unknown one, is permanent.
    """
    codes = {row.reason: row.exit_code for row in ERROR_CLASSES.values()}
    codes[Reason.ATTEMPTS_EXHAUSTED] = ERROR_CLASSES[Transient].exit_code
    return codes.get(reason, ERROR_CLASSES[Internal].exit_code)
