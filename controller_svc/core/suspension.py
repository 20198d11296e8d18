"""Stopping for now: the stage stays where it is, nothing is at work, and all results are kept.

What goes on does so with the same attempt of the same stage, whose finished shards are found done;
it costs none of the stage's budget.
"""

from __future__ import annotations

from controller_svc.core.conditions import set_condition
from controller_svc.core.moves import progressing
from controller_svc.core.observed import Observed
from controller_svc.core.state import Reason, RunStatus
from seal.settings import Spec


def is_suspended(status: RunStatus) -> bool:
    """Whether it has stopped for now."""
    condition = status.condition("Suspended")
    return condition is not None and condition.status == "True"


def suspend(status: RunStatus, observed: Observed) -> RunStatus:
    """Stop for now."""
    now = observed.now_seconds
    message = "stopped by its owner; what is done is kept"
    status = set_condition(status, "Suspended", "True", Reason.SUSPENDED, message, now)
    if status.current is None:
        return status
    return set_condition(status, "Progressing", "False", Reason.SUSPENDED, "", now)


def go_on(spec: Spec, status: RunStatus, observed: Observed) -> RunStatus:
    """Go on after a stop."""
    now = observed.now_seconds
    status = set_condition(status, "Suspended", "False", Reason.RESUMED, "", now)
    if status.current is None:
        return status
    return progressing(spec, status, status.current, now)
