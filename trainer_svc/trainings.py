"""The trainings that this service has accepted, from request to stored result.

A training belongs to the service, not to a call, whoever is still listening. It ends in one of
three ways:

- its result is stored (`{run}/trainings/...json`): from then on every retry of the same request
  gets this result, also after a restart. A training whose own content is at fault (a row too long,
  for example) ends so too: its outcome says it, and nobody else pays;
- trained, but the adapter could not be stored (disk full): the weights stay in memory and the next
  retry only stores them;
- failed before that: it is forgotten, the callers get the error, and a retry starts anew, with the
  same seeds and so the same weights, or goes on from the last checkpoint if the request asked for
  checkpoints.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from seal import telemetry
from seal.engine import (
    Adapter,
    Checkpoints,
    Suspended,
    TaskState,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
    save_adapter,
)
from seal.errors import Conflict, NotFound, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.records import Record, TrainingRecord
from seal.rpc.convert import finite_or_zero
from seal.rpc.engine_calls import Newest, engine_call, shows_life
from seal.rpc.line import EngineTask, Line
from seal.v1 import common_pb2, trainer_pb2
from trainer_svc.checkpoints import checkpoints_of, discard_checkpoint
from trainer_svc.plan import TrainingPlan, result_path
from trainer_svc.publish import adapters_prefix, publish_adapter

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.artifacts import ArtifactStore
    from seal.engine import Engine

log = structlog.get_logger(__name__)

CANCEL_WAIT_SECONDS = 5.0
"""How long a cancel waits for the engine to let go before it answers with the state as it is."""
FINAL_CHECKPOINT_SECONDS = 60.0
"""How long an ending process waits for suspended trainings to finish their step and for their
checkpoints to be written."""
UNSTORED_ADAPTERS = 64
"""Trained adapters kept in memory because they could not be stored; the oldest leave first and
would be trained again."""

_STATES = MappingProxyType(
    {
        TaskState.QUEUED: common_pb2.TASK_STATE_QUEUED,
        TaskState.RUNNING: common_pb2.TASK_STATE_RUNNING,
        TaskState.DONE: common_pb2.TASK_STATE_DONE,
    }
)

Key = tuple[str, str]
"""(run, request_id)."""


class StoredTraining(Record):
    """An ended training as it is kept for retries."""

    request_id: str
    """Idempotency key."""
    body_sha256: str
    """Digest of the request that it belongs to."""
    result: TrainingRecord
    """How it ended."""


class Training:
    """One accepted training."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.progress = Newest(trainer_pb2.TrainingProgress(state=common_pb2.TASK_STATE_QUEUED))
        self.cancel_requested = False
        self.engine_task: EngineTask[TrainingResult] | None = None
        """Once it has a place in the engine's queue."""
        self.waiting: asyncio.Task[TrainingResult] | None = None
        """Its time in the line and in the engine."""
        self.give_up_at = float("-inf")
        """Monotonic time until which a caller waits for a place in the engine's queue."""
        self.checkpoints: Checkpoints | None = None
        self.task: asyncio.Task[TrainingRecord]
        """Its whole life; read it with `result`, never await it directly: a caller that leaves must
        not end it."""

    def wait_until(self, seconds: float | None) -> None:
        """One more caller, who can wait so long (None: for ever) for a place in the queue."""
        caller_gives_up_at = float("inf") if seconds is None else time.monotonic() + seconds
        self.give_up_at = max(self.give_up_at, caller_gives_up_at)

    def time_left(self) -> float | None:
        """Seconds until no caller waits any more; None: for ever."""
        left = self.give_up_at - time.monotonic()
        return None if left == float("inf") else left

    async def result(self) -> TrainingRecord:
        """Wait for the end. Raises what ended it, or Transient if the service is shutting down."""
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():
                raise Transient(
                    "the trainer is shutting down", remedy="send the same request again"
                ) from None
            raise


class Trainings:
    """All trainings of one service; belongs to one event loop."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: ArtifactStore,
        adapters: AdapterCache,
        save_adapter: Callable[[Adapter, Path], None] = save_adapter,
    ) -> None:
        self._engine, self._store, self._adapters = engine, store, adapters
        self._save_adapter = save_adapter
        self._live: dict[Key, Training] = {}
        self._unstored: OrderedDict[Key, tuple[str, TrainingResult]] = OrderedDict()
        self._line = Line("train")
        self._closing = self._suspending = False

    def attach(self, plan: TrainingPlan, *, time_left: float | None = None) -> Training:
        """The live training of this request, or a new one.

        `time_left`: seconds that this caller can wait for a place in the engine's queue; None: as
        long as it takes. Raises Conflict if the request_id belongs to another body.
        """
        key = (plan.run, plan.request_id)
        if (training := self._live.get(key)) is not None:
            _check_same_body(plan, training.plan.body_sha256)
            training.wait_until(time_left)
            return training
        if self._closing or (self._suspending and plan.checkpoint_every_seconds):
            raise Transient("the trainer is shutting down", remedy="send the same request again")
        training = self._live[key] = Training(plan)
        training.wait_until(time_left)
        training.task = asyncio.create_task(self._run(training), name=f"training {plan.request_id}")
        training.task.add_done_callback(lambda task: self._ended(key, task))
        return training

    async def find(self, *, run: str, request_id: str) -> Training | StoredTraining:
        """A live or an ended training. Raises NotFound."""
        if (training := self._live.get((run, request_id))) is not None:
            return training
        if (
            stored := await asyncio.to_thread(self._read, result_path(run, request_id))
        ) is not None:
            return stored
        raise NotFound(
            f"run {run!r} has no training {request_id!r}",
            field="request_id",
            remedy="send TrainAdapter; a failed training is forgotten",
        )

    async def cancel(self, *, run: str, request_id: str) -> bool:
        """Stop one training and wait shortly for its end; True if it has ended. Raises NotFound."""
        found = await self.find(run=run, request_id=request_id)
        if isinstance(found, StoredTraining):
            return True
        found.cancel_requested = True
        if found.engine_task is not None:
            found.engine_task.cancel()
        elif found.waiting is not None:
            found.waiting.cancel()
        await asyncio.wait({found.task}, timeout=CANCEL_WAIT_SECONDS)
        return found.task.done()

    def alive(self) -> bool:
        """Whether the engine gives signs of life."""
        return shows_life(self._engine)

    def suspend(self) -> None:
        """Stop the trainings that keep checkpoints after their current step, with a last one.

        `close` waits for it. The others go on.
        """
        self._suspending = True
        for training in self._live.values():
            if training.checkpoints is not None:
                training.checkpoints.suspend()

    async def close(self, *, grace_seconds: float) -> None:
        """Accept nothing new and end what runs within the grace.

        What keeps checkpoints is suspended, the others may end, what is left then is dropped. A
        retry goes on from the checkpoints and trains the others again.
        """
        self._closing = True
        self.suspend()
        suspended = {
            training.task
            for training in self._live.values()
            if training.plan.checkpoint_every_seconds
        }
        others = {training.task for training in self._live.values()} - suspended
        await asyncio.gather(
            _end_within(others, grace_seconds),
            _end_within(suspended, max(grace_seconds, FINAL_CHECKPOINT_SECONDS)),
        )

    async def _run(self, training: Training) -> TrainingRecord:
        plan, key = training.plan, (training.plan.run, training.plan.request_id)
        if (stored := await asyncio.to_thread(self._stored_result, plan)) is not None:
            return stored
        body, trained = self._unstored.get(key, ("", None))
        if trained is None or body != plan.body_sha256:
            trained = await self._train_or_outcome(training)
        self._unstored[key] = (plan.body_sha256, trained)
        while len(self._unstored) > UNSTORED_ADAPTERS:
            self._unstored.popitem(last=False)
        record = await asyncio.to_thread(self._keep, plan, trained)
        self._unstored.pop(key, None)
        telemetry.metrics.trainings.labels(outcome=record.outcome.value).inc()
        log.info(
            "training ended",
            run=plan.run,
            request_id=plan.request_id,
            outcome=record.outcome.value,
            steps=record.steps,
            resumed_step=training.progress.value.resumed_step,
            final_loss=round(record.final_loss, 4),
            seconds=round(record.seconds, 3),
        )
        return record

    async def _train_or_outcome(self, training: Training) -> TrainingResult:
        """A training whose own content is at fault has an outcome, which is final as any other."""
        try:
            return await self._train(training)
        except UnfitItem as error:
            log.warning(
                "training unfit",
                run=training.plan.run,
                request_id=training.plan.request_id,
                outcome=error.outcome.value,
                reason=str(error),
            )
            return _without_adapter(error.outcome)

    async def _train(self, training: Training) -> TrainingResult:
        plan = training.plan
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        if training.cancel_requested:
            return _without_adapter(Outcome.CANCELLED)
        request = TrainingRequest(
            run=plan.run,
            policy=policy,
            examples=plan.examples,
            lora=plan.lora,
            optimizer=plan.optimizer,
            init_seed=plan.init_seed,
            order_seed=plan.order_seed,
            with_policy=plan.with_policy,
        )
        async with checkpoints_of(self._store, plan) as training.checkpoints:
            if training.checkpoints is not None and self._suspending:
                training.checkpoints.suspend()
            async with engine_call(
                lambda: self._start(training, request),
                line=self._line,
                time_left=training.time_left,
            ) as training.waiting:
                log.info(
                    "training accepted",
                    run=plan.run,
                    request_id=plan.request_id,
                    examples=len(plan.examples),
                    rank=plan.lora.rank,
                )
                await asyncio.wait({training.waiting})
                if training.waiting.cancelled() and training.cancel_requested:
                    return _without_adapter(Outcome.CANCELLED)
                return training.waiting.result()

    def _start(self, training: Training, request: TrainingRequest) -> EngineTask[TrainingResult]:
        """Hand the request to the engine; a cancel that came meanwhile is passed on."""
        task = self._engine.train(
            request,
            on_progress=lambda progress: training.progress.set(_progress_message(progress)),
            checkpoints=training.checkpoints,
        )
        training.engine_task = task
        if training.cancel_requested:
            task.cancel()
        return task

    def _stored_result(self, plan: TrainingPlan) -> TrainingRecord | None:
        """Result of an earlier life of this request.

        None if there is none or its adapter has been deleted since.
        """
        stored = self._read(plan.result_path)
        if stored is None:
            return None
        _check_same_body(plan, stored.body_sha256)
        adapter = stored.result.adapter
        if adapter is not None and not self._store.exists(
            f"{adapters_prefix(plan.run)}/{adapter.sha256}/manifest.json"
        ):
            log.warning(
                "stored adapter is gone, training again",
                run=plan.run,
                request_id=plan.request_id,
                adapter=adapter.sha256,
            )
            return None
        discard_checkpoint(self._store, plan)
        return stored.result

    def _read(self, path: str) -> StoredTraining | None:
        return self._store.read_json(path, StoredTraining) if self._store.exists(path) else None

    def _keep(self, plan: TrainingPlan, trained: TrainingResult) -> TrainingRecord:
        """Publish the adapter, then the result; blocks on the store."""
        record = TrainingRecord(
            outcome=trained.outcome,
            adapter=None
            if trained.adapter is None
            else publish_adapter(self._store, plan.run, trained.adapter, self._save_adapter),
            steps=trained.steps,
            final_loss=finite_or_zero(trained.final_loss),
            tokens=trained.tokens,
            seconds=trained.seconds,
            engine_seconds=trained.engine_seconds,
        )
        stored = StoredTraining(
            request_id=plan.request_id, body_sha256=plan.body_sha256, result=record
        )
        self._store.write_json(plan.result_path, stored)
        discard_checkpoint(self._store, plan)
        return record

    def _ended(self, key: Key, task: asyncio.Task[TrainingRecord]) -> None:
        del self._live[key]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Suspended):
            log.info("training suspended", run=key[0], request_id=key[1], reason=str(error))
        else:
            telemetry.metrics.trainings.labels(outcome="failed").inc()
            log.warning(
                "training failed",
                run=key[0],
                request_id=key[1],
                error=type(error).__name__,
                reason=str(error),
            )


def _progress_message(progress: TrainingProgress) -> trainer_pb2.TrainingProgress:
    return trainer_pb2.TrainingProgress(
        state=_STATES[progress.state],
        step=progress.step,
        total_steps=progress.total_steps,
        loss=finite_or_zero(progress.loss),
        eta_seconds=finite_or_zero(progress.eta_seconds),
        resumed_step=progress.resumed_step,
    )


async def _end_within(tasks: set[asyncio.Task[TrainingRecord]], seconds: float) -> None:
    """Let tasks end, then cancel those that have not."""
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _check_same_body(plan: TrainingPlan, body_sha256: str) -> None:
    if plan.body_sha256 != body_sha256:
        raise Conflict(
            f"request_id {plan.request_id!r} of run {plan.run!r} belongs to another training",
            field="request_id",
            remedy="give a changed request a new request_id",
        )


def _without_adapter(outcome: Outcome) -> TrainingResult:
    """A training that ended before the engine could say how far it was."""
    return TrainingResult(
        outcome=outcome,
        adapter=None,
        steps=0,
        final_loss=0.0,
        tokens=0,
        seconds=0.0,
        engine_seconds=0.0,
    )
