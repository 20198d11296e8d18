"""One turn of the loop, the same on a laptop and on a cluster.

    observe (which attempts live, how far they are) -> decide (pure) -> save the status -> act

The status is saved before anything is started for it. A controller that is killed at any moment
leaves a run that the next one takes up: it asks for the same stage under the same name, and the
stage's workers find what they have committed. What wakes the loop (an event, a tick, the end of a
task) is the caller's matter: the loop itself only looks at what is there.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from controller_svc.core import DEFAULT_BUDGET, AttemptBudget, RunStatus, decide
from controller_svc.world import World
from seal.settings import Spec

log = structlog.get_logger(__name__)


def log_transition(before: RunStatus, after: RunStatus) -> None:
    """One line per change of phase or stage, and one per new attempt."""
    if (before.phase, before.round, before.stage) != (after.phase, after.round, after.stage):
        reasons = [condition.reason for condition in after.conditions if condition.status == "True"]
        log.info(
            "run moved",
            run=after.run,
            phase=str(after.phase),
            round=after.round,
            stage=after.stage,
            reasons=reasons,
            supervised=any(policy.supervised for policy in after.policies),
        )
    current, old = after.current, before.current
    if current is not None and current.attempt > 1 and (old is None or old.name != current.name):
        log.warning(
            "stage again",
            run=after.run,
            stage=current.name,
            delay_seconds=current.delay_seconds,
            cause=current.message,
        )


async def reconcile(
    spec: Spec,
    status: RunStatus,
    world: World,
    *,
    budget: AttemptBudget = DEFAULT_BUDGET,
    told: Callable[[RunStatus, RunStatus], None] = log_transition,
) -> RunStatus:
    """Bring the world one step nearer to what the run wants; the status that is saved now.

    `told` is called with the status before and the one that was saved, before anything is done.

    Raises:
        Conflict: another controller has taken over; nothing was started.
        SealError: the world could not be seen or changed. Nothing is lost: the next turn looks
            again and does what is still to be done.

    """
    observed = await world.observe(status)
    decision = decide(spec, status, observed, budget=budget)
    if decision.status != status:
        await world.save(decision.status)
        told(status, decision.status)
    for action in decision.actions:
        await world.act(action)
    return decision.status
