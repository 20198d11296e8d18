"""The small changes of a status that deciding and reopening are made of."""

from __future__ import annotations

from types import MappingProxyType

from controller_svc.core.conditions import set_condition
from controller_svc.core.plan import is_warm_start, place_name, shards
from controller_svc.core.state import Counters, Reason, RunStatus, StageStatus
from seal.names import stage_name
from seal.records import Stage
from seal.settings import Spec

_RUNNING_REASONS = MappingProxyType(
    {
        Stage.PREPARE: Reason.PREPARE_RUNNING,
        Stage.ROLLOUT: Reason.ROLLOUT_RUNNING,
        Stage.IMPROVE: Reason.IMPROVE_RUNNING,
        Stage.VALIDATE: Reason.VALIDATE_RUNNING,
        Stage.QUESTION: Reason.QUESTION_RUNNING,
        Stage.ADAPT: Reason.ADAPT_RUNNING,
    }
)


def enter(spec: Spec, status: RunStatus, round: int, stage: Stage, now_seconds: float) -> RunStatus:
    """The status with (round, stage) wanted."""
    current = StageStatus(
        name=stage_name(run=status.run, round=round, stage=stage, attempt=1),
        stage=stage,
        round=round,
        shards=shards(spec, stage),
    )
    counters = count(status.counters, started=1)
    status = status.model_copy(
        update={"round": round, "stage": stage, "current": current, "counters": counters}
    )
    return progressing(spec, status, current, now_seconds)


def progressing(
    spec: Spec, status: RunStatus, current: StageStatus, now_seconds: float
) -> RunStatus:
    """The status with nothing that keeps its current stage."""
    round, stage = current.round, current.stage
    message = place_name(spec, round, stage)
    if is_warm_start(round, stage):
        message = "round 0: warm start on gold pairs (supervised)"
    return set_condition(
        status, "Progressing", "True", _RUNNING_REASONS[stage], message, now_seconds
    )


def set_current(status: RunStatus, current: StageStatus, **update: object) -> RunStatus:
    """The status with its current stage changed."""
    return status.model_copy(update={"current": current.model_copy(update=update)})


def count(
    counters: Counters, *, started: int = 0, succeeded: int = 0, failed: int = 0, shards: int = 0
) -> Counters:
    """The counters after so much more."""
    return Counters(
        stages_started=counters.stages_started + started,
        stages_succeeded=counters.stages_succeeded + succeeded,
        stages_failed=counters.stages_failed + failed,
        shards_succeeded=counters.shards_succeeded + shards,
    )
