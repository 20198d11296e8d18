"""The M-step: choose the edits that helped, then let the policy learn to write them.

The choice is a pure function of the rollout's records and of what the model can take, and is
written down before anything is trained. Nothing kept, or a training that diverged, makes no policy:
the old one stays. Who trains is the caller's matter: a trainer service, or an engine in this
process (`python -m trainer_svc.improve`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

import structlog

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.errors import Conflict, Internal
from seal.limits import MAX_ROW_CHARACTERS
from seal.records import (
    AdapterReference,
    ContextRecord,
    LearntRow,
    ModelDescription,
    SelectionRecord,
    ShardSummary,
    Stage,
    TrainingRecord,
)
from seal.remedies import engine_setting
from seal.restem.part_selection import Place, places_of, select_parts
from seal.restem.rollout import select_records
from seal.restem.seeds import derive_seed
from seal.rpc.convert import (
    chat_message_list,
    lora_message,
    optimizer_message,
    policy_message,
)
from seal.runs.clock import ShardClock
from seal.runs.epochs import check_epoch
from seal.runs.prompts import with_learnt_prompts
from seal.runs.shards import ShardStore
from seal.runs.store import commit_selection, in_thread, pinned, read_selection, stage_path
from seal.runs.task import ShardTask
from seal.settings import RunSpec
from seal.v1 import common_pb2, trainer_pb2

log = structlog.get_logger(__name__)

OnStep = Callable[[int, int], None]
"""(step, total steps) of the training."""
OnResumed = Callable[[int], None]
"""Step at which it went on from a checkpoint."""


class Trainer(Protocol):
    """Who trains."""

    @property
    def max_request_bytes(self) -> int:
        """Largest request that it takes."""

    async def train(
        self,
        request: trainer_pb2.TrainAdapterRequest,
        on_progress: OnStep,
        on_resumed: OnResumed | None = None,
    ) -> TrainingRecord:
        """The end of one training; the same request again finds what there is of it."""

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """Tokens of each row."""


async def improve(
    task: ShardTask,
    *,
    spec: RunSpec,
    store: ArtifactStore,
    trainer: Trainer,
    clock: ShardClock,
    on_step: OnStep,
    on_resumed: OnResumed,
) -> ShardSummary:
    """Run the M-step of a round; its summary, not yet committed.

    Raises:
        Internal: the rollout's records are not those of its summaries.
        Superseded: a newer controller has started the stage.
        SealError: from the trainer.

    """
    prepared = await pinned(store, task.run)
    selection = await read_selection(store, task.run, task.round)
    if selection is None:
        records = await rollout_records(store, task.run, spec, task.round)
        records = await with_learnt_prompts(records, spec=spec, store=store, run=task.run)
        chosen = await select_fitting(
            partial(choose, records, round=task.round, spec=spec),
            max_row_tokens=prepared.model.max_row_tokens,
            trainer=trainer,
        )
        await check_epoch(store, task.run, task.round, Stage.IMPROVE, task.epoch)
        selection = await commit_selection(store, task.run, chosen)
    log.info(
        "edits selected",
        kept=len(selection.kept),
        rows=len(selection.rows),
        dropped=dict(selection.dropped),
        dropped_parts=dict(selection.dropped_parts),
        label=selection.label,
    )
    training = None
    if selection.kept:
        request = improve_request(
            selection.rows,
            run=task.run,
            round=task.round,
            spec=spec,
            policy=task.policy,
            base_sha256=prepared.model.base_sha256,
        )
        request = await carried(request, store=store, task=task, limit=trainer.max_request_bytes)
        training = await trainer.train(request, on_step, on_resumed)
        if training.adapter is None:
            log.warning("policy not trained", outcome=str(training.outcome))
    return task.summary(
        seconds=clock.seconds,
        result_sha256=selection.sha256,
        outcomes={str(training.outcome): 1} if training else {},
        tokens={"improve": training.tokens} if training else {},
        engine_seconds={"improve": training.engine_seconds} if training else {},
        stored_bytes={"policy": await in_thread(store.bytes_under, training.adapter.path)}
        if training and training.adapter
        else {},
        policy=training.adapter if training else None,
        kept=len(selection.kept),
        kept_parts=sum(len(edit.rows) for edit in selection.kept),
        label=selection.label,
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


def check_row_tokens(run: str, before: ModelDescription, now: int) -> None:
    """Refuse a trainer that takes shorter rows than the one that a run was prepared for.

    What was found to fit, or was kept, would now be too long: work that is done would be lost.
    `now` is the longest row that it takes, tokens. Raises Conflict.
    """
    if now < before.max_row_tokens:
        raise Conflict(
            f"run {run!r} was prepared for rows of up to {before.max_row_tokens} tokens, the "
            f"trainer takes {now}",
            field="engine.maxRowTokens",
            remedy="raise " + engine_setting("max_row_tokens", before.max_row_tokens),
        )


def choose(
    records: Sequence[ContextRecord],
    too_long: Collection[Place],
    *,
    round: int,
    spec: RunSpec,
) -> SelectionRecord:
    """What a round keeps, leaving out what has a row at one of these places."""
    if spec.improve.credit == "part":
        return select_parts(
            records,
            round=round,
            seed=spec.seed,
            settings=spec.improve,
            domain=get_domain(spec.domain),
            too_long=too_long,
        )
    return select_records(
        records,
        round=round,
        keep_per_context=spec.improve.keep_per_context,
        too_long={(context_id, candidate) for context_id, candidate, _ in too_long},
    )


async def select_fitting(
    choose: Callable[[Collection[Place]], SelectionRecord], *, max_row_tokens: int, trainer: Trainer
) -> SelectionRecord:
    """What a round keeps of edits, or of parts, that can be learnt.

    One of which a row is too long for the trainer leaves its place to the next best of its context,
    and is counted as `too_long`.
    """
    too_long: set[Place] = set()
    while True:
        selection = choose(too_long)
        places = places_of(selection)
        fits = await fitting_rows(selection.rows, max_row_tokens, trainer)
        found = {place for place, fit in zip(places, fits, strict=True) if not fit}
        if not found:
            return selection
        too_long |= found


async def fitting_rows(
    rows: Sequence[LearntRow], max_row_tokens: int, trainer: Trainer
) -> list[bool]:
    """For each row, whether a training can take it."""
    examples = [training_row(row) for row in rows]
    short = [row for row in examples if row_characters(row) <= MAX_ROW_CHARACTERS]
    counts = iter(await trainer.count_tokens(short))
    return [
        row_characters(row) <= MAX_ROW_CHARACTERS and next(counts) <= max_row_tokens
        for row in examples
    ]


def training_row(row: LearntRow) -> trainer_pb2.TrainingExample:
    """A row of the M-step to the wire."""
    return trainer_pb2.TrainingExample(
        prompt=row.prompt, messages=chat_message_list(row.messages), completion=row.completion
    )


def row_characters(row: trainer_pb2.TrainingExample) -> int:
    """Characters of prompt, turns and completion."""
    of_messages = sum(len(message.content) for message in row.messages)
    return len(row.prompt) + len(row.completion) + of_messages


def improve_request(
    rows: Sequence[LearntRow],
    *,
    run: str,
    round: int,
    spec: RunSpec,
    policy: AdapterReference | None,
    base_sha256: str = "",
) -> trainer_pb2.TrainAdapterRequest:
    """The M-step: the policy, or the base model, learns the kept rows.

    The result is one adapter on the base model. The same round gives the same request, byte for
    byte.
    """
    settings = spec.improve
    beneath = policy if settings.start == "policy" else None
    return trainer_pb2.TrainAdapterRequest(
        request_id=f"{run}/r{round}/{Stage.IMPROVE}/policy",
        run=run,
        policy=policy_message(spec.model, beneath, base_sha256=base_sha256),
        examples=[training_row(row) for row in rows],
        lora=lora_message(settings.lora),
        optimizer=optimizer_message(settings.optimizer),
        init_seed=derive_seed(spec.seed, "init", "improve", round),
        order_seed=derive_seed(spec.seed, "order", "improve", round),
        export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY,
        checkpoint_every_seconds=settings.checkpoint_every_seconds,
    )


async def carried(
    request: trainer_pb2.TrainAdapterRequest,
    *,
    store: ArtifactStore,
    task: ShardTask,
    limit: int,
) -> trainer_pb2.TrainAdapterRequest:
    """The request, with its examples in a file of the store if a message cannot carry them."""
    if request.ByteSize() <= limit:
        return request
    rows = trainer_pb2.TrainingExamples(examples=request.examples)
    content = rows.SerializeToString(deterministic=True)
    path = f"{stage_path(task.run, task.round, Stage.IMPROVE)}/examples.binpb"
    content = await in_thread(store.create_bytes, path, content)
    small = trainer_pb2.TrainAdapterRequest()
    small.CopyFrom(request)
    small.ClearField("examples")
    digest = hashlib.sha256(content).hexdigest()
    small.examples_file.CopyFrom(common_pb2.FileRef(path=path, sha256=digest))
    return small
