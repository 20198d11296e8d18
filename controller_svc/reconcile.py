"""One turn of the loop, the same on a laptop and on a cluster.

    observe (which attempts live, how far they are) -> decide (pure) -> save the status -> act

The status is saved before anything is started for it. A controller that is killed at any moment
leaves a run that the next one takes up: it asks for the same stage under the same name, and the
stage's workers find what they have committed. What wakes the loop (an event, a tick, the end of a
task) is the caller's matter: the loop itself only looks at what is there.
"""

from __future__ import annotations

from collections.abc import Callable

from controller_svc.core import DEFAULT_BUDGET, AttemptBudget, RunStatus, decide
from controller_svc.world import World
from seal.settings import Spec


async def reconcile(
    spec: Spec,
    status: RunStatus,
    world: World,
    *,
    told: Callable[[RunStatus, RunStatus], None],
    budget: AttemptBudget = DEFAULT_BUDGET,
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
