"""Which contexts a round uses.

A round takes the next `train_contexts` of one shuffled circle of all training contexts: rounds meet
new contexts as long as there are some, and every context is met equally often (to within one) over
time. The circle depends on the seed and the set of contexts only.
"""

from __future__ import annotations

from collections.abc import Sequence

from seal.errors import InvalidInput
from seal.restem.seeds import derive_seed


def plan_round(
    run_seed: int, context_ids: Sequence[str], round: int, train_contexts: int
) -> tuple[str, ...]:
    """Contexts of one round's rollout, in the order of `context_ids`.

    `round` counts from 1; `train_contexts` is their number, 0 (or more than there are) takes all.

    Raises:
        InvalidInput: no contexts, an id twice, a round below 1 or a negative number.
    """
    _check(context_ids, round, train_contexts)
    total = len(context_ids)
    if train_contexts == 0 or train_contexts >= total:
        return tuple(context_ids)
    circle = sorted(
        context_ids,
        key=lambda context_id: (derive_seed(run_seed, "contexts", context_id), context_id),
    )
    first = (round - 1) * train_contexts
    chosen = {circle[(first + place) % total] for place in range(train_contexts)}
    return tuple(context_id for context_id in context_ids if context_id in chosen)


def _check(context_ids: Sequence[str], round: int, train_contexts: int) -> None:
    if not context_ids:
        raise InvalidInput(
            "there is no training context",
            field="data.train",
            remedy="give a file with at least one passage",
        )
    if len(set(context_ids)) != len(context_ids):
        raise InvalidInput(
            "a training context is given twice", field="data.train", remedy="give each context once"
        )
    if round < 1:
        raise InvalidInput(
            f"round {round} has no rollout", field="round", remedy="rollouts begin with round 1"
        )
    if train_contexts < 0:
        raise InvalidInput(
            f"{train_contexts} contexts cannot be taken",
            field="data.trainContexts",
            remedy="give 0 for all, or more",
        )
