"""The M-step: choose the edits that helped, then let the policy learn to write them.

The choice is a pure function of the rollout's records and is written down before anything is
trained. Nothing kept, or a training that diverged, makes no policy: the old one stays.
"""

from __future__ import annotations

import asyncio

import structlog

from controller_svc.core import Stage
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import Meter
from controller_svc.worker.requests import Requests
from controller_svc.worker.shard_task import ShardTask
from controller_svc.worker.store import (
    ShardClock,
    ShardStore,
    commit_selection,
    read_selection,
)
from seal.artifacts import ArtifactStore
from seal.errors import Internal
from seal.records import ContextRecord, SelectionRecord, ShardSummary, TrainingRecord
from seal.restem.rollout import select_records
from seal.settings import RunSpec

log = structlog.get_logger(__name__)


async def improve(
    task: ShardTask,
    *,
    spec: RunSpec,
    store: ArtifactStore,
    clients: ServiceClients,
    clock: ShardClock,
    meter: Meter,
) -> ShardSummary:
    """Run the M-step of a round.

    Raises:
        Internal: the rollout's records are not those of its summaries.
        SealError: from the trainer.

    """
    selection = await read_selection(store, task.run, task.round)
    if selection is None:
        records = await rollout_records(store, task.run, spec, task.round)
        selection = select_records(
            records, round=task.round, keep_per_context=spec.improve.keep_per_context
        )
        selection = await commit_selection(store, task.run, selection)
    log.info("edits selected", kept=len(selection.kept), dropped=dict(selection.dropped))
    meter.plan(edits=0, trainings=1, queries=0, inner_loops=0)
    training = await _train(task, spec, clients, meter, selection) if selection.kept else None
    meter.tell(now=True)
    return ShardSummary(
        name=task.name,
        stage=Stage.IMPROVE,
        round=task.round,
        shard=task.shard,
        attempt=task.attempt,
        seconds=clock.seconds,
        inner_loops_run=0,
        inner_loops_resumed=0,
        outcomes={str(training.outcome): 1} if training else {},
        tokens={"improve": training.tokens} if training else {},
        engine_seconds={"improve": training.engine_seconds} if training else {},
        policy=training.adapter if training else None,
        kept=len(selection.kept),
        result_sha256=selection.sha256,
    )


async def rollout_records(
    store: ArtifactStore, run: str, spec: RunSpec, round: int
) -> tuple[ContextRecord, ...]:
    """All context records of a round's rollout, ordered by context.

    So the number of shards does not show.
    """
    shards = [
        ShardStore(store, run=run, round=round, stage=Stage.ROLLOUT, shard=shard)
        for shard in range(spec.shards)
    ]
    parts = await asyncio.gather(*(_checked_records(shard) for shard in shards))
    return tuple(
        sorted((record for part in parts for record in part), key=lambda record: record.context_id)
    )


async def _checked_records(shard: ShardStore) -> tuple[ContextRecord, ...]:
    summary = await shard.summary()
    if summary is None:
        raise Internal(
            f"{shard.path} has no summary though its stage is over",
            remedy="delete the round's stages and resume",
        )
    records, sha256 = await shard.read_records()
    if sha256 != summary.result_sha256:
        raise Internal(
            f"{shard.path}/records.jsonl is not the file of its summary",
            remedy=f"delete {shard.path} and resume",
        )
    return records


async def _train(
    task: ShardTask,
    spec: RunSpec,
    clients: ServiceClients,
    meter: Meter,
    selection: SelectionRecord,
) -> TrainingRecord:
    """The finetuning of the policy on the kept edits."""
    request = Requests(
        run=task.run, spec=spec, stage=Stage.IMPROVE, round=task.round, policy=task.policy
    ).improve(selection.kept)

    def resumed(step: int) -> None:
        log.info("training of the policy resumed", step=step)
        meter.training_resumed(request.request_id, step=step)

    record = await clients.train(
        request,
        lambda step, total: meter.training(request.request_id, step=step, total_steps=total),
        on_resumed=resumed,
    )
    meter.trained(request.request_id, steps=record.steps)
    if record.adapter is None:
        log.warning("policy not improved", outcome=str(record.outcome))
    return record
