"""What a spec asks for: its stages in order, and their shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from controller_svc.core.ranges import parse_ranges
from controller_svc.core.state import Phase, RunStatus, StageStatus
from seal.records import Stage
from seal.settings import AdaptationSpec, LearningSpec, RunSpec, Spec

_OF_ONE_SHARD = (Stage.PREPARE, Stage.IMPROVE, Stage.ADAPT)
STAGE_WEIGHTS: Mapping[Stage, float] = MappingProxyType(
    {
        Stage.PREPARE: 0.02,
        Stage.QUESTION: 0.18,
        Stage.ROLLOUT: 0.55,
        Stage.IMPROVE: 0.2,
        Stage.VALIDATE: 0.23,
        Stage.ADAPT: 0.6,
    }
)
"""Rough shares of the time, until a stage of the kind has been measured; nothing but what is shown
depends on them."""


def spec_digest(spec: LearningSpec) -> str:
    """sha256 of a spec's canonical JSON, but for where its numbers are tracked."""
    decides = spec.model_dump(mode="json", exclude={"tracking"})
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def share_done(plan: Sequence[tuple[int, Stage]], at: tuple[int, Stage], share: float) -> float:
    """Share of the whole in [0, 1] once this share of a stage of the plan is done."""
    before = plan[: plan.index(at)]
    done = sum(STAGE_WEIGHTS[stage] for _, stage in before) + share * STAGE_WEIGHTS[at[1]]
    return done / sum(STAGE_WEIGHTS[stage] for _, stage in plan)


def share_of(spec: Spec, status: RunStatus, share: float) -> float:
    """Share of the whole, with `share` of its stage done; 0 between stages and after an early end.

    Who shows it keeps the most that it was.
    """
    if status.phase is Phase.COMPLETE:
        return 1.0
    current = status.current
    if current is None:
        return 0.0
    return min(0.99, share_done(stages(spec), (current.round, current.stage), share))


def share_of_stage(current: StageStatus, at_work: Mapping[int, float]) -> float:
    """Share of a stage that is done, by what its shards at work tell.

    A shard that has told nothing counts as 0, so that the share never falls when one begins to
    tell; one that is finished counts whole, whatever it told last.
    """
    finished = parse_ranges(current.completed)
    told = sum(share for shard, share in at_work.items() if shard not in finished)
    return min(1.0, (len(finished) + told) / current.shards)


def stages(spec: Spec) -> tuple[tuple[int, Stage], ...]:
    """(round, stage) of the whole, in order; all of an adaptation's are of round 0."""
    if isinstance(spec, AdaptationSpec):
        made = (Stage.QUESTION,) if spec.questions.source == "self-made" else ()
        return tuple((0, stage) for stage in (Stage.PREPARE, *made, Stage.ROLLOUT, Stage.ADAPT))
    learning = (
        (round, stage)
        for round in range(1, spec.rounds + 1)
        for stage in (Stage.ROLLOUT, Stage.IMPROVE, Stage.VALIDATE)
    )
    warm = ((0, Stage.IMPROVE),) if spec.improve.warm_start == "gold" else ()
    return ((0, Stage.PREPARE), *warm, (0, Stage.VALIDATE), *learning)


def is_warm_start(round: int, stage: Stage) -> bool:
    """Whether a run's stage is its supervised M-step, before round 1."""
    return (round, stage) == (0, Stage.IMPROVE)


def shards(spec: LearningSpec, stage: Stage) -> int:
    """Parts of one stage: what brings everything together is one, others have `spec.shards`."""
    return 1 if stage in _OF_ONE_SHARD else spec.shards


def place_name(spec: Spec, round: int, stage: Stage) -> str:
    """Where a run or an adaptation is, for people."""
    return f"round {round} of {spec.rounds}: {stage}" if isinstance(spec, RunSpec) else str(stage)
