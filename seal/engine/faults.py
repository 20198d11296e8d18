"""What becomes of work that fails: who is the cause, and whether the engine can go on.

Work of several requests that fails in company is done again with the suspects apart. Who fails
alone is the cause and ends with its own outcome; the others end as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import torch

from seal.errors import SealError, UnfitItem
from seal.outcomes import Outcome

log = structlog.get_logger(__name__)


class DeviceLost(Exception):
    """The device answers nothing any more: the engine is broken."""


def attempt(work: Callable[[], object], device: torch.device) -> Exception | None:
    """Do it, and return the error that it ended with.

    Without its frames, which would keep the tensors of the failed work alive. Raises DeviceLost if
    nothing more can be done on the device.
    """
    try:
        work()
    except Exception as error:  # whatever it is, somebody's work has failed and the engine goes on
        log.warning("engine_work_failed", error=repr(error), exc_info=not _expected(error))
        failure = error.with_traceback(None)
    else:
        return None
    if _is_of_the_device(failure) and not answers(device):
        raise DeviceLost(_first_line(failure))
    return failure


def answers(device: torch.device) -> bool:
    """Whether the device still adds one and one; after some CUDA errors nothing works any more."""
    try:
        return float(torch.ones(1, device=device).add_(1.0)) == 2.0
    except RuntimeError:
        return False


def blame(error: Exception, *, work: str) -> SealError:
    """What a request ends with whose work failed although nobody else took part."""
    if isinstance(error, SealError):
        return error
    return UnfitItem(
        f"the engine cannot {work} it, even alone: {type(error).__name__}: {_first_line(error)}",
        outcome=Outcome.REFUSED,
        remedy="see the engine's log; if memory is short, make the request smaller or give the "
        "engine more",
    )


def _expected(error: Exception) -> bool:
    return isinstance(error, SealError)


def _is_of_the_device(error: Exception) -> bool:
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
