"""Folding a finished stage's summaries into the round and, after an M-step, the policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller_svc.core.state import PolicyStatus, RoundStatus, RunStatus, Stage
from seal.records import ScoreSum, ShardSummary


def fold_stage(status: RunStatus) -> RunStatus:
    """The status with the results of its finished stage in `rounds` and `policies`.

    All tasks must have summaries. The numbers are summed in the order of the shards, so that they
    do not depend on the order of arrival.
    """
    summaries = tuple(task.summary for task in status.tasks if task.summary is not None)
    old = next(
        (entry for entry in status.rounds if entry.round == status.round),
        RoundStatus(round=status.round),
    )
    rounds = (
        *(entry for entry in status.rounds if entry.round != status.round),
        _fold_round(old, status.stage, summaries),
    )
    status = status.model_copy(
        update={"rounds": tuple(sorted(rounds, key=lambda entry: entry.round))}
    )
    if status.stage is Stage.IMPROVE:
        status = status.model_copy(
            update={"policies": (*status.policies, _new_policy(status, summaries[0]))}
        )
    return status


def _new_policy(status: RunStatus, summary: ShardSummary) -> PolicyStatus:
    """What the M-step made; an M-step that kept nothing leaves the old policy."""
    if summary.policy is None:
        return PolicyStatus(round=status.round, adapter=status.policies[-1].adapter, improved=False)
    return PolicyStatus(round=status.round, adapter=summary.policy, improved=True)


def _fold_round(
    old: RoundStatus, stage: Stage | None, summaries: tuple[ShardSummary, ...]
) -> RoundStatus:
    """One stage's summaries added to a round."""
    update: dict[str, object] = {
        "outcomes": add(
            {f"{stage}/{name}": n for name, n in add(*(s.outcomes for s in summaries)).items()},
            old.outcomes,
        ),
        "tokens": add(old.tokens, *(s.tokens for s in summaries)),
        "engine_seconds": add_floats(old.engine_seconds, *(s.engine_seconds for s in summaries)),
        "seconds": {**old.seconds, str(stage): max((s.seconds for s in summaries), default=0.0)},
        "inner_loops_run": old.inner_loops_run + sum(s.inner_loops_run for s in summaries),
        "inner_loops_resumed": old.inner_loops_resumed
        + sum(s.inner_loops_resumed for s in summaries),
    }
    if stage is Stage.ROLLOUT:
        update["rollout"] = add_scores(s.scores for s in summaries)
    elif stage is Stage.VALIDATE:
        update["validation"] = add_scores(s.scores for s in summaries)
    else:
        update |= {
            "kept": sum(s.kept for s in summaries),
            "selection_sha256": summaries[0].result_sha256,
        }
    return old.model_copy(update=update)


def add(*counts: Mapping[str, int]) -> dict[str, int]:
    """Sums by key; keys in order."""
    return {
        key: sum(count.get(key, 0) for count in counts)
        for key in sorted({key for count in counts for key in count})
    }


def add_floats(*amounts: Mapping[str, float]) -> dict[str, float]:
    """Sums by key; keys in order."""
    return {
        key: sum(amount.get(key, 0.0) for amount in amounts)
        for key in sorted({key for amount in amounts for key in amount})
    }


def add_scores(parts: Iterable[Mapping[str, ScoreSum]]) -> dict[str, ScoreSum]:
    """Sums of scores by name; a name that no part has is absent, not 0."""
    sums: dict[str, ScoreSum] = {}
    for part in parts:
        for name, score in sorted(part.items()):
            before = sums.get(name, ScoreSum(n=0, total=0.0))
            sums[name] = ScoreSum(n=before.n + score.n, total=before.total + score.total)
    return sums
