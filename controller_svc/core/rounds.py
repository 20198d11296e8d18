"""Sums: a stage's summaries into one, and a finished stage into its round and the policies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from controller_svc.core.observed import StageSums
from controller_svc.core.state import (
    AdaptationStatus,
    Cost,
    FinishedStage,
    PolicyStatus,
    RoundStatus,
    RunStatus,
)
from seal.errors import Internal
from seal.outcomes import Outcome
from seal.records import AdaptationCounts, ScoreSum, ShardSummary, Stage
from seal.restem.reward import present
from seal.sums import add

MEASURED_ROUNDS = 4
"""Newest rounds whose measures a status holds; the summaries have all."""
Value = TypeVar("Value")


def sum_shards(summaries: Sequence[ShardSummary], *, stage: Stage, round: int) -> StageSums:
    """What all shards of a stage came to.

    The numbers are summed in the order of the shards, so that they do not depend on the order in
    which the shards ended.

    Raises:
        Internal: a summary is not the one of its place.

    """
    for shard, summary in enumerate(summaries):
        if (summary.stage, summary.round, summary.shard) != (stage, round, shard):
            raise Internal(
                f"the summary of {stage} round {round} shard {shard} is that of {summary.stage} "
                f"round {summary.round} shard {summary.shard}",
                remedy="delete that shard's directory and resume",
            )
    digests = [summary.result_sha256 for summary in summaries]
    together = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return StageSums(
        stage=stage,
        round=round,
        shards=len(summaries),
        outcomes=add(*(summary.outcomes for summary in summaries)),
        tokens=add(*(summary.tokens for summary in summaries)),
        engine_seconds=add(*(summary.engine_seconds for summary in summaries)),
        seconds=max((summary.seconds for summary in summaries), default=0.0),
        stored_bytes=add(*(summary.stored_bytes for summary in summaries)),
        inner_loops_run=sum(summary.inner_loops_run for summary in summaries),
        inner_loops_resumed=sum(summary.inner_loops_resumed for summary in summaries),
        scores=add_scores(summary.scores for summary in summaries),
        measures=add_scores(summary.measures for summary in summaries),
        dropped=add(*(summary.dropped for summary in summaries)),
        device=summaries[0].device,
        policy=summaries[0].policy,
        counts=_add_counts(summary.counts for summary in summaries),
        result=summaries[0].result,
        kept=sum(summary.kept for summary in summaries),
        kept_parts=sum(summary.kept_parts for summary in summaries),
        label=", ".join(sorted({summary.label for summary in summaries} - {""})),
        result_sha256=digests[0] if len(digests) == 1 else together,
    )


def fold_stage(
    status: RunStatus, sums: StageSums, now_seconds: float, *, counted: bool = False
) -> RunStatus:
    """The status with a finished stage in `rounds` and `policies`, or in `adaptation`.

    And in its cost, unless that is `counted`: a stage that ended with too few scores, and is done
    now that more may be missing, is folded twice.
    """
    if not counted:
        status = status.model_copy(update={"cost": _add_cost(status.cost, sums)})
    if sums.stage is Stage.PREPARE:
        status = status.model_copy(update={"device": sums.device})
    if status.adaptation is not None:
        folded = _fold_adaptation(status.adaptation, sums, now_seconds)
        return status.model_copy(update={"adaptation": folded})
    if sums.stage is Stage.PREPARE:
        return status
    old = next(
        (entry for entry in status.rounds if entry.round == sums.round),
        RoundStatus(round=sums.round),
    )
    rounds = (
        *(_aged(entry, sums.round) for entry in status.rounds if entry.round != sums.round),
        _fold_round(old, sums, counted=counted),
    )
    status = status.model_copy(
        update={"rounds": tuple(sorted(rounds, key=lambda entry: entry.round))}
    )
    if sums.stage is Stage.IMPROVE:
        status = status.model_copy(
            update={"policies": (*status.policies, _new_policy(status, sums))}
        )
    return status


def round_name(status: RunStatus, round: int) -> str:
    """A round with what must be said wherever it is shown: `round 0 (warm start, supervised)`."""
    entry = next((entry for entry in status.rounds if entry.round == round), None)
    return f"round {round}" + (f" ({entry.label})" if entry and entry.label else "")


def unscored(sums: StageSums) -> tuple[int, int]:
    """(inner loops without a score, inner loops) of a stage."""
    total = sum(sums.outcomes.values())
    return total - sums.outcomes.get(Outcome.OK, 0), total


def _new_policy(status: RunStatus, sums: StageSums) -> PolicyStatus:
    """What the M-step made; an M-step that kept nothing leaves the old policy."""
    if sums.policy is None:
        old = status.policies[-1].adapter if status.policies else None
        return PolicyStatus(round=sums.round, adapter=old, trained=False)
    supervised = sums.round == 0  # the warm start
    return PolicyStatus(round=sums.round, adapter=sums.policy, trained=True, supervised=supervised)


def _add_cost(cost: Cost, sums: StageSums) -> Cost:
    """What all stages took, with one more."""
    return Cost(
        tokens=add(_placed(sums.stage, sums.tokens), cost.tokens),
        engine_seconds=add(_placed(sums.stage, sums.engine_seconds), cost.engine_seconds),
    )


def _fold_round(old: RoundStatus, sums: StageSums, *, counted: bool) -> RoundStatus:
    """One stage's sums added to a round."""
    update: dict[str, object] = {
        "outcomes": {**old.outcomes, **_placed(sums.stage, sums.outcomes)},
        "tokens": {**old.tokens, **_placed(sums.stage, sums.tokens)},
        "engine_seconds": {**old.engine_seconds, **_placed(sums.stage, sums.engine_seconds)},
        "measures": {**old.measures, **_placed(sums.stage, sums.measures)},
        "seconds": {**old.seconds, str(sums.stage): sums.seconds},
    }
    if not counted:
        update |= {
            "stored_bytes": add(old.stored_bytes, sums.stored_bytes),
            "inner_loops_run": old.inner_loops_run + sums.inner_loops_run,
            "inner_loops_resumed": old.inner_loops_resumed + sums.inner_loops_resumed,
        }
    if sums.stage is Stage.ROLLOUT:
        update["rollout"] = dict(sums.scores)
    elif sums.stage is Stage.VALIDATE:
        update["validation"] = dict(sums.scores)
    else:
        update |= {
            "kept": sums.kept,
            "kept_parts": sums.kept_parts,
            "dropped": dict(sums.dropped),
            "label": sums.label,
            "selection_sha256": sums.result_sha256,
        }
    return old.model_copy(update=update)


def _aged(entry: RoundStatus, newest: int) -> RoundStatus:
    """A round without its measures, once it is old: a status stays small."""
    old = entry.measures and entry.round <= newest - MEASURED_ROUNDS
    return entry.model_copy(update={"measures": {}}) if old else entry


def _placed(stage: Stage, values: Mapping[str, Value]) -> dict[str, Value]:
    """Values by `stage/name`."""
    return {f"{stage}/{name}": value for name, value in values.items()}


def _fold_adaptation(
    old: AdaptationStatus, sums: StageSums, now_seconds: float
) -> AdaptationStatus:
    """One stage's sums added to an adaptation."""
    done = FinishedStage(
        stage=sums.stage,
        tokens=dict(sums.tokens),
        engine_seconds=dict(sums.engine_seconds),
        seconds=sums.seconds,
        ended_seconds=now_seconds,
    )
    update: dict[str, object] = {"stages": (*old.stages, done)}
    if sums.stage is Stage.PREPARE:
        update["prepared"] = sums.counts or AdaptationCounts()
    elif sums.stage is Stage.QUESTION:
        update["questioned"] = sums.counts or AdaptationCounts()
    elif sums.stage is Stage.ROLLOUT:
        update |= {
            "edits": dict(sums.outcomes),
            "scores": dict(sums.scores),
            "measures": dict(sums.measures),
        }
    else:
        update["result"] = sums.result
    return old.model_copy(update=update)


def _add_counts(parts: Iterable[AdaptationCounts | None]) -> AdaptationCounts | None:
    """The counts of all shards; None if none has any."""
    there = [part for part in parts if part is not None]
    return sum(there, AdaptationCounts()) if there else None


def add_scores(parts: Iterable[Mapping[str, ScoreSum]]) -> dict[str, ScoreSum]:
    """Sums of scores by name; a name that no part has is absent, not 0."""
    sums: dict[str, ScoreSum] = {}
    for part in parts:
        for name, score in sorted(part.items()):
            before = sums.get(name, ScoreSum(n=0, total=0.0, squares=0.0))
            squares = (before.squares, score.squares)
            sums[name] = ScoreSum(
                n=before.n + score.n,
                total=before.total + score.total,
                squares=None if None in squares else sum(present(squares)),
            )
    return sums
