"""What is left to do for an object that has ended: tidying up, and its deletion in its time."""

from __future__ import annotations

import structlog

from controller_svc.adaptations import kept_adapters
from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.wanted import Wanted
from seal.artifacts import ArtifactStore
from seal.errors import Internal
from seal.records import AdapterReference, Stage
from seal.runs.cancelled import is_trained, mark_cancelled
from seal.runs.cleanup import is_swept, sweep_run
from seal.runs.shards import ShardStore
from seal.settings import RunSpec

log = structlog.get_logger(__name__)


async def sweep(store: ArtifactStore, wanted: Wanted, status: RunStatus) -> bool:
    """Remove once what only the way to the end needed; False if some of it could not be.

    A run that failed keeps it, for whoever wants to know why, and so does one whose summaries are
    damaged: what they named would go as well.

    Raises:
        SealError: the store is away.

    """
    spec = wanted.manifest.spec
    started = status.started_seconds is not None
    failed_run = isinstance(spec, RunSpec) and status.phase is not Phase.COMPLETE
    if not started or failed_run or await is_swept(store, status.run):
        return True
    try:
        kept = (
            await _policies(store, status.run, spec)
            if isinstance(spec, RunSpec)
            else list(kept_adapters(status))
        )
    except Internal as error:
        log.warning("run not swept", run=status.run, cause=str(error))
        return True
    return await sweep_run(
        store,
        status.run,
        policies=kept,
        keep_inner_adapters=spec.artifacts.keep_inner_adapters,
        for_good=True,
    )


async def disown(store: ArtifactStore, status: RunStatus) -> bool:
    """Let the trainers stop what was asked for an adaptation that has come to an early end.

    Its workers cannot: they do not know why they are stopped. Whether a trainer is still at work
    for it, and writes a result yet.

    Raises:
        SealError: the store is away.

    """
    early = status.phase is not Phase.COMPLETE and status.started_seconds is not None
    if status.adaptation is None or not early or await is_swept(store, status.run):
        return False
    await mark_cancelled(store, status.run)
    return await is_trained(store, status.run)


async def _policies(store: ArtifactStore, run: str, spec: RunSpec) -> list[AdapterReference]:
    """Of all rounds: the object shows the newest alone."""
    found = []
    for round in range(spec.rounds + 1):
        files = ShardStore(store, run=run, round=round, stage=Stage.IMPROVE, shard=0)
        summary = await files.summary()
        if summary is not None and summary.policy is not None:
            found.append(summary.policy)
    return found


def seconds_to_live(
    kept_seconds: int | None, status: RunStatus, now_seconds: float
) -> float | None:
    """Until an object that has ended is to be deleted; None if it is kept. Its results stay.

    `kept_seconds`: its `ttlSecondsAfterFinished`.
    """
    if kept_seconds is None or status.finished_seconds is None:
        return None
    return status.finished_seconds + kept_seconds - now_seconds
