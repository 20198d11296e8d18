"""How far an object is, for people: the share that is done, the time left, `kubectl get`'s columns.

All of it is counted anew at each look from the status, from the shares of the current stage's
shards, and from when its Job began: a controller that starts anew goes on counting as the one
before. Nothing that is decided depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from controller_svc.core import (
    STAGE_WEIGHTS,
    Phase,
    RunStatus,
    StageStatus,
    is_warm_start,
    parse_ranges,
    shards,
    share_of,
    share_of_stage,
    stages,
)
from controller_svc.k8s.objects import ObjectColumns, ObjectProgress
from seal.artifacts import ArtifactStore
from seal.records import Stage
from seal.runs.shares import read_shares, share_path
from seal.runs.store import in_thread
from seal.settings import AdaptationSpec, RunSpec, Spec

MAX_READ = 8
"""Shards at work whose own shares are read at one look: each is a request to the store."""
MIN_SHARE_FOR_ETA = 0.05
"""Share of a stage from which on the time that it took says something about the rest."""


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """How far the current stage is."""

    share: float = 0.0
    """What is done of it, in [0, 1]."""
    seconds: float = 0.0
    """Since its Job began."""


async def stage_share(store: ArtifactStore, run: str, current: StageStatus, active: int) -> float:
    """Share of a stage that is done: its finished shards, and what those at work tell.

    `active`: shards at work. Of many the first few stand for the others.
    """
    finished = parse_ranges(current.completed)
    at_work = [shard for shard in range(current.shards) if shard not in finished][:active]
    paths = [share_path(run, current.round, current.stage, shard) for shard in at_work[:MAX_READ]]
    told = [one.share for one in await in_thread(read_shares, store, paths)]
    mean = sum(told) / len(paths) if paths else 0.0
    return share_of_stage(current, dict.fromkeys(at_work, mean))


def progress_of(
    spec: Spec,
    status: RunStatus,
    stage: StageProgress,
    *,
    before: ObjectProgress,
    places: int,
    now_seconds: float,
) -> ObjectProgress:
    """How far the whole is; it never goes back. `places`: shards of a stage at work at once."""
    percent = int(100 * share_of(spec, status, stage.share))
    return ObjectProgress(
        percent=max(percent, before.percent),
        eta_seconds=_eta_seconds(spec, status, stage, places),
        last_update_time=datetime.fromtimestamp(now_seconds, tz=UTC),
    )


def columns_of(spec: Spec, status: RunStatus) -> ObjectColumns:
    """What `kubectl get` shows of it."""
    if isinstance(spec, RunSpec):
        return ObjectColumns(round=f"{status.round}/{spec.rounds}", reward=_reward(status))
    result = status.adaptation.result if status.adaptation is not None else None
    gain = result.evaluation.gain if result is not None else None
    return ObjectColumns(
        stage=str(status.stage or ""), gain="" if gain is None else f"{gain.mean:+.3f}"
    )


def _reward(status: RunStatus) -> str:
    """Mean reward of the newest round that was validated: what its edits came to on average."""
    scores = (entry.validation.get("edit") for entry in reversed(status.rounds))
    means = (score.mean for score in scores if score is not None)
    return next((f"{mean:.3f}" for mean in means if mean is not None), "")


def _eta_seconds(spec: Spec, status: RunStatus, stage: StageProgress, places: int) -> int | None:
    """What is left of the current stage, and the others as long as they took before.

    What was not measured yet takes its share of what was. None while nothing was, and while nothing
    is at work.
    """
    current = status.current
    if current is None or status.phase is not Phase.RUNNING:
        return None
    measured = _measured(spec, status, places)
    weight = STAGE_WEIGHTS[current.stage]
    if stage.seconds and stage.share >= MIN_SHARE_FOR_ETA:
        own = stage.seconds / stage.share
        pace = own / weight
    elif measured:
        pace = sum(measured.values()) / sum(STAGE_WEIGHTS[one] for one in measured)
        own = max(measured.get(current.stage, pace * weight), stage.seconds)
    else:
        return None
    plan = stages(spec)
    following = plan[plan.index((current.round, current.stage)) + 1 :]
    later = sum(measured.get(one, pace * STAGE_WEIGHTS[one]) for _, one in following)
    return round(own - stage.seconds + later)


def _measured(spec: Spec, status: RunStatus, places: int) -> dict[Stage, float]:
    """Seconds that the newest finished stage of a kind took, at most.

    What is known is its longest shard; where there are more than places they take turns.
    """
    if isinstance(spec, AdaptationSpec):
        return {}  # each comes once
    return {
        Stage(name): seconds * -(-shards(spec, Stage(name)) // places)
        for entry in status.rounds
        for name, seconds in entry.seconds.items()
        if seconds > 0 and not is_warm_start(entry.round, Stage(name))  # which is another work
    }
