"""The ends of a run or an adaptation: done, cancelled, failed."""

from __future__ import annotations

from controller_svc.core.conditions import cut, set_condition
from controller_svc.core.moves import count, set_current
from controller_svc.core.observed import Observed
from controller_svc.core.state import Phase, Reason, RunStatus, StageState, StageStatus


def cancel(status: RunStatus, observed: Observed) -> RunStatus:
    """The end that the owner wishes; what runs is stopped."""
    where = f"during {status.stage}" if status.stage else "before it started"
    return end(status, Phase.CANCELLED, Reason.CANCELLED, f"cancelled {where}", observed)


def end(
    status: RunStatus, phase: Phase, reason: str, message: str, observed: Observed
) -> RunStatus:
    """An end after which nothing is at work."""
    now = observed.now_seconds
    update = {"phase": phase, "stage": None, "current": None, "finished_seconds": now}
    status = status.model_copy(update=update)
    status = set_condition(status, "Progressing", "False", reason, "", now)
    return set_condition(status, str(phase), "True", reason, message, now)


def fail(
    status: RunStatus, current: StageStatus, reason: str, message: str, observed: Observed
) -> RunStatus:
    """End the run: the stage failed for good; what still runs of it is stopped."""
    now = observed.now_seconds
    status = set_current(status, current, state=StageState.FAILED, message=cut(message))
    status = status.model_copy(
        update={
            "phase": Phase.FAILED,
            "counters": count(status.counters, failed=1),
            "finished_seconds": now,
        }
    )
    status = set_condition(status, "Progressing", "False", Reason.RUN_FAILED, "", now)
    return set_condition(status, "Failed", "True", reason, message, now)
