"""The M-step: choose the edits that helped, then let the policy learn to write them.

The choice is a pure function of the rollout's records and of what the model can take, and is
written down before anything is trained. Nothing kept, or a training that diverged, makes no policy:
the old one stays. The M-step of round 0 is the warm start (`seal.runs.warm_start`): it learns gold
pairs in place of edits. Who trains is the caller's matter: a trainer service, or an engine in this
process (`python -m trainer_svc.improve`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from seal.artifacts import ArtifactStore
from seal.errors import Conflict, InvalidInput
from seal.records import (
    AdapterReference,
    LearntRow,
    ModelDescription,
    ShardSummary,
    Stage,
    TrainingRecord,
    written_by,
)
from seal.remedies import engine_setting
from seal.restem.seeds import derive_seed
from seal.rpc.convert import (
    lora_message,
    optimizer_message,
    policy_message,
)
from seal.runs.clock import ShardClock
from seal.runs.epochs import check_epoch
from seal.runs.rows import RowCounter, training_row
from seal.runs.selection import choose_edits
from seal.runs.shards import ShardStore
from seal.runs.store import commit_selection, in_thread, pinned, read_selection, stage_path
from seal.runs.task import ShardTask
from seal.runs.warm_start import choose_rows, commit_supervised, read_supervised
from seal.settings import RunSpec
from seal.v1 import common_pb2, trainer_pb2

log = structlog.get_logger(__name__)

WARM_START_ROWS = "gold question-answer pairs of training passages (supervised)"
"""What the card of the warm start's policy says that it was trained on."""
ON_WARM_START_ROWS = (
    "text that a language model wrote for itself, on top of a supervised warm start on gold "
    "question-answer pairs"
)
"""The same of a policy that goes on from it."""
OTHERS_ROWS = "text that another language model wrote"
"""The same of what has learnt edits that it did not write."""
ON_OTHERS_ROWS = (
    "text that a language model wrote for itself, on top of text that another one wrote"
)
"""The same of a policy that goes on from one that has."""
OnStep = Callable[[int, int], None]
"""(step, total steps) of the training."""
OnResumed = Callable[[int], None]
"""Step at which it went on from a checkpoint."""


class Trainer(RowCounter, Protocol):
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


@dataclass(frozen=True, kw_only=True)
class _Lesson:
    """What an M-step learns, as it is written down."""

    rows: tuple[LearntRow, ...]
    sha256: str
    kept: int = 0
    """Edits."""
    kept_parts: int = 0
    """Parts of these, or gold rows."""
    label: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Edits of which nothing is learnt, by reason."""


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
    """Run the M-step of a round, in round 0 the warm start; its summary, not yet committed.

    Raises:
        Internal: the rollout's records are not those of its summaries.
        InvalidInput: round 0 of a run without a warm start.
        Superseded: a newer controller has started the stage.
        SealError: from the trainer.

    """
    prepared = await pinned(store, task.run)
    decide = _warm_start if task.round == 0 else _selection
    lesson = await decide(task, spec, store, trainer, prepared.policy_model.max_row_tokens)
    training = None
    if lesson.rows:
        request = improve_request(
            lesson.rows,
            run=task.run,
            round=task.round,
            spec=spec,
            policy=task.policy,
            base_sha256=prepared.policy_model.base_sha256,
            warmed=task.round > 0 and await _warmed(store, task.run),
        )
        request = await carried(
            request,
            store=store,
            path=f"{stage_path(task.run, task.round, Stage.IMPROVE)}/examples.binpb",
            limit=trainer.max_request_bytes,
        )
        training = await trainer.train(request, on_step, on_resumed)
        if training.adapter is None:
            log.warning("policy not trained", outcome=str(training.outcome))
    policy = training.adapter if training else None
    return task.summary(
        seconds=clock.seconds,
        result_sha256=lesson.sha256,
        outcomes={str(training.outcome): 1} if training else {},
        tokens={"improve": training.tokens} if training else {},
        engine_seconds={"improve": training.engine_seconds} if training else {},
        stored_bytes={"policy": await in_thread(store.bytes_under, policy.path)} if policy else {},
        policy=policy,
        kept=lesson.kept,
        kept_parts=lesson.kept_parts,
        dropped=lesson.dropped,
        # A warm start that made no policy leaves a round 0 that has learnt nothing
        label=lesson.label if policy or task.round else "",
    )


async def _selection(
    task: ShardTask, spec: RunSpec, store: ArtifactStore, trainer: Trainer, max_row_tokens: int
) -> _Lesson:
    """What a round keeps of its rollout, decided once."""
    selection = await read_selection(store, task.run, task.round)
    if selection is None:
        chosen = await choose_edits(
            task.run, task.round, spec, store, max_row_tokens=max_row_tokens, trainer=trainer
        )
        if spec.edit.generator is not None and task.policy is None:
            others = written_by(spec.edit.generator.model)
            label = f"{chosen.label}, {others}" if chosen.label else others
            chosen = chosen.model_copy(update={"label": label})
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
    return _Lesson(
        rows=selection.rows if selection.kept else (),
        sha256=selection.sha256,
        kept=len(selection.kept),
        kept_parts=sum(len(edit.rows) for edit in selection.kept),
        label=selection.label,
        dropped=dict(selection.dropped),
    )


async def _warm_start(
    task: ShardTask, spec: RunSpec, store: ArtifactStore, trainer: Trainer, max_row_tokens: int
) -> _Lesson:
    """The gold rows of training contexts, decided once."""
    if spec.improve.warm_start == "none":
        raise InvalidInput(
            f"run {task.run!r} has no warm start, and round 0 no other M-step",
            field="round",
            remedy="give a round from 1, or begin a run with improve.warmStart: gold",
        )
    record = await read_supervised(store, task.run)
    if record is None:
        chosen = await choose_rows(
            task.run, spec, store, max_row_tokens=max_row_tokens, trainer=trainer
        )
        await check_epoch(store, task.run, task.round, Stage.IMPROVE, task.epoch)
        record = await commit_supervised(store, task.run, chosen)
    log.info(
        "warm start on gold pairs", label=record.label, rows=len(record.rows), **record.dropped
    )
    return _Lesson(
        rows=tuple(row.row for row in record.rows),
        sha256=record.sha256,
        kept_parts=len(record.rows),
        label=record.label,
    )


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


def improve_request(
    rows: Sequence[LearntRow],
    *,
    run: str,
    round: int,
    spec: RunSpec,
    policy: AdapterReference | None,
    base_sha256: str = "",
    warmed: bool = False,
) -> trainer_pb2.TrainAdapterRequest:
    """The M-step: the policy, or the base model, learns the kept rows.

    The result is one adapter on the base model. The same round gives the same request, byte for
    byte. `warmed`: a warm start has made the run's first policy.
    """
    settings = spec.improve
    beneath = policy if settings.start == "policy" else None
    return trainer_pb2.TrainAdapterRequest(
        request_id=f"{run}/r{round}/{Stage.IMPROVE}/policy",
        run=run,
        policy=policy_message(spec.writer, beneath, base_sha256=base_sha256),
        examples=[training_row(row) for row in rows],
        lora=lora_message(settings.lora),
        optimizer=optimizer_message(settings.optimizer),
        init_seed=derive_seed(spec.seed, "init", "improve", round),
        order_seed=derive_seed(spec.seed, "order", "improve", round),
        export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY,
        checkpoint_every_seconds=settings.checkpoint_every_seconds,
        rows_note=_rows_note(round, policy=policy, beneath=beneath, spec=spec, warmed=warmed),
    )


async def _warmed(store: ArtifactStore, run: str) -> bool:
    """Whether a warm start has made a policy: one that learnt nothing leaves the base model."""
    warm = await ShardStore(store, run=run, round=0, stage=Stage.IMPROVE, shard=0).summary()
    return warm is not None and warm.policy is not None


def _rows_note(
    round: int,
    *,
    policy: AdapterReference | None,
    beneath: AdapterReference | None,
    spec: RunSpec,
    warmed: bool,
) -> str:
    """What the adapter's card says of its rows; empty for a model's own texts alone.

    `policy`: which wrote the edits, None for the base model or, if there is one, the endpoint's.
    """
    if round == 0:
        return WARM_START_ROWS
    by_others = spec.edit.generator is not None
    if by_others and policy is None:
        return OTHERS_ROWS
    if beneath is None:
        return ""
    if warmed:
        return ON_WARM_START_ROWS
    return ON_OTHERS_ROWS if by_others else ""


async def carried(
    request: trainer_pb2.TrainAdapterRequest,
    *,
    store: ArtifactStore,
    path: str,
    limit: int,
) -> trainer_pb2.TrainAdapterRequest:
    """The request, with its examples in the file `path` if a message cannot carry them."""
    if request.ByteSize() <= limit:
        return request
    rows = trainer_pb2.TrainingExamples(examples=request.examples)
    content = rows.SerializeToString(deterministic=True)
    content = await in_thread(store.create_bytes, path, content)
    small = trainer_pb2.TrainAdapterRequest()
    small.CopyFrom(request)
    small.ClearField("examples")
    digest = hashlib.sha256(content).hexdigest()
    small.examples_file.CopyFrom(common_pb2.FileRef(path=path, sha256=digest))
    return small
