"""The engine: one frozen base model, the thread that owns it, and three kinds of work.

Callers hand in requests from any thread and get a task with a future. The thread takes, in this
order: one step of the running generation; evaluation, once enough rows wait or no training could
run meanwhile; one training step. So adapters that finish training pile up until one decode can
serve them all. A generation that goes on and on lets one piece of other work pass from time to
time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import torch

from seal.bases import BaseReference
from seal.engine.allocator import keep_freed_memory
from seal.engine.available import usable_bytes
from seal.engine.budget import MIB, BatchLimits, MemoryBudget
from seal.engine.checkpointing import Checkpoints, Suspended, job_checkpoints
from seal.engine.evaluation import encode_golds, evaluate
from seal.engine.generation import Generation
from seal.engine.generations import Generations
from seal.engine.health import Health
from seal.engine.memory import MemoryEstimate
from seal.engine.model import FrozenModel
from seal.engine.precision import compute_dtype, dtype_name, multiplies_bfloat16
from seal.engine.queues import KINDS, EngineTask, FairQueue, Kind
from seal.engine.requests import (
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    GenerationResult,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
)
from seal.engine.threads import compute_serially, compute_with
from seal.engine.training import TrainingBatch, make_job
from seal.errors import Exhausted, Internal, InvalidInput, SealError, Transient
from seal.outcomes import Outcome
from seal.settings import EngineSettings
from seal.telemetry import metrics

log = structlog.get_logger(__name__)

MAX_EVALUATION_WAIT_SECONDS = 30.0
"""An evaluation that waited this long runs even if the batch is not full and trainings are
active."""
MAX_TRAINING_WAIT_SECONDS = 60.0
"""Once the next training in turn waited this long for a batch of its own shape, nothing more joins
the running one."""
RETRY_AFTER_SECONDS = 2.0
"""When a caller who met a full queue may ask again."""
GENERATION_TURN_SECONDS = 5.0
"""After so much generation, one evaluation batch or training step comes in between if one waits."""


class Engine:
    """Trains, generates and evaluates on one base model. Safe to call from any thread."""

    def __init__(
        self, model: FrozenModel, settings: EngineSettings, *, memory_bytes: int | None = None
    ) -> None:
        """`memory_bytes`: what the engine may take in all where the settings do not say.

        None: what is free now and the base model.
        Raises InvalidInput naming `engine.slots` if the setting does not fit.
        """
        self.name, self.settings = model.name, settings
        if memory_bytes is None:
            memory_bytes = (
                settings.memory_bytes or usable_bytes(settings.device) + model.size.base_bytes
            )
        self._budget = MemoryBudget(model.size, settings, memory_bytes)
        self._model = model
        self._queues: dict[Kind, FairQueue] = {kind: FairQueue() for kind in KINDS}
        self._trainings, self._generations, self._evaluations = self._queues.values()
        self._unfinished: set[EngineTask[Any]] = set()
        """Every task that has not ended, waiting or in hand."""
        self._written, self._turn_seconds = (
            Generations(model, max_rows=settings.generation_rows),
            0.0,
        )
        self._batch: TrainingBatch | None = None
        self._limits = BatchLimits(settings.slots, None)
        """Of the batch."""
        self._active: dict[int, EngineTask[TrainingResult]] = {}
        """id(job) -> task of the trainings that hold a slot."""
        self._owners: list[EngineTask[Any]] = []
        """Tasks of the work in hand: they end with its error if it fails."""
        self._wake = threading.Condition()
        self._closing = False
        self._health = Health(stall_seconds=settings.stall_seconds, on_broken=self._fail_unfinished)
        metrics.engine_slots.set(settings.slots)
        self._thread = threading.Thread(target=self._run, name="seal-engine", daemon=True)
        self._thread.start()
        log.info(
            "engine_memory",
            dtype=dtype_name(model.dtype),
            needed_mib=self.memory.total // MIB,
            limit_mib=memory_bytes // MIB,
            parts=str(self.memory),
        )

    @property
    def broken(self) -> str | None:
        """Why this engine will never work again, None while it works; readable from any thread.

        All tasks have ended with Transient then, and every call raises it. The process should end,
        so that another takes its place.
        """
        if self._health.reason is None and not (self._closing or self._thread.is_alive()):
            self._health.give_up("the engine's thread has ended")
        return self._health.reason

    @property
    def heartbeat_seconds(self) -> float:
        """Age of the engine's last sign of life, 0 while it has nothing to do.

        Above `engine.stall_seconds` the engine counts as broken.
        """
        return self._health.silent_seconds

    def queued(self, kind: Kind) -> int:
        """Requests of a kind that wait; Exhausted refuses more than `engine.max_queue`."""
        return len(self._queues[kind])

    @property
    def memory(self) -> MemoryEstimate:
        """What the settings take at most, for default adapters and the longest rows."""
        return self._budget.at_start

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str,
        settings: EngineSettings,
        base: BaseReference | None = None,
    ) -> Engine:
        """Load a transformers directory and start the engine.

        `base`: what adapters and requests call the model; None: its name alone.

        From then on only the engine's thread computes in parallel. Raises InvalidInput for an
        unsupported model or device, and for a setting that does not fit, before the weights are
        read.
        """
        keep_freed_memory()
        compute_serially()
        try:
            torch.empty(1, device=settings.device)
        except (RuntimeError, AssertionError) as error:
            raise InvalidInput(
                f"device {settings.device!r} cannot be used: {str(error).splitlines()[0]}",
                field="engine.device",
                remedy="use cpu, or a machine and a torch build with that device",
            ) from error
        dtype = compute_dtype(settings.dtype, settings.device)
        if dtype == torch.bfloat16 and not multiplies_bfloat16(torch.device(settings.device)):
            log.warning(
                "bfloat16 is emulated on this device and far slower than float32",
                remedy="set engine.dtype to auto",
            )
        memory_bytes = settings.memory_bytes or usable_bytes(settings.device)
        MemoryBudget(
            FrozenModel.size_on_disk(directory, name=name, dtype=dtype), settings, memory_bytes
        )
        model = FrozenModel.load(
            directory, name=name, dtype=dtype, device=settings.device, base=base
        )
        return cls(model, settings, memory_bytes=memory_bytes)

    @property
    def base(self) -> BaseReference:
        """The base model as adapters name it."""
        return self._model.base

    @property
    def base_sha256(self) -> str:
        """Digest of the base model's weights, lower-case hex; empty if nobody has told it."""
        return self._model.base.sha256

    def train(
        self,
        request: TrainingRequest,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> EngineTask[TrainingResult]:
        """Queue a training. `on_progress` is called from the engine's thread after every step.

        With `checkpoints` its state is handed out now and then, and it may go on from such a state.
        Raises InvalidInput for what can never be trained (naming the field), Exhausted when the
        queue is full.
        """
        self._check_open("train")
        if request.lora.rank > self.settings.max_rank:
            raise InvalidInput(
                f"rank {request.lora.rank} is larger than the engine's largest, "
                f"{self.settings.max_rank}",
                field="lora.rank",
                remedy="ask for a smaller rank or raise engine.max_rank",
            )
        self._budget.check_request(request.lora, request.policy)
        job = make_job(self._model, request, max_row_tokens=self.settings.max_row_tokens)
        job.on_progress = on_progress
        job.checkpoints = (
            None if checkpoints is None else job_checkpoints(checkpoints, self._model, job)
        )
        return self._queue("train", EngineTask(request.run, request, on_progress, job))

    def generate(
        self, request: GenerationRequest, on_progress: Callable[[int, int], None] | None = None
    ) -> EngineTask[GenerationResult]:
        """Queue a generation.

        `on_progress(samples done, tokens)` is called from the engine's thread. Raises as `train`.
        """
        self._check_open("generate")
        if request.policy is not None:
            self._model.check_adapter(request.policy, field="policy")
        return self._queue(
            "generate",
            EngineTask(request.run, request, on_progress, Generation(self._model, request)),
        )

    def evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None = None
    ) -> EngineTask[EvaluationResult]:
        """Queue an evaluation. `on_progress(queries done)` is called from the engine's thread.

        Raises as `train`.
        """
        self._check_open("evaluate")
        for adapter, field in ((request.policy, "policy"), (request.adapter, "adapter")):
            if adapter is not None:
                self._model.check_adapter(adapter, field=field)
        for prompt in request.prompts:
            self._model.text.check_prompt(prompt)
        encode_golds(self._model, request)
        return self._queue("evaluate", EngineTask(request.run, request, on_progress))

    def close(self) -> None:
        """Stop after the current step; what is unfinished ends with Transient.

        Does not wait for the thread of an engine that is broken.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        while self._thread.is_alive() and self.broken is None:
            self._thread.join(timeout=1.0)

    def _check_open(self, kind: Kind) -> None:
        """Raise Transient if nothing is done here any more, Exhausted if the queue is full.

        Asked before a request is looked at, so that a caller may ask again and again.
        """
        if (reason := self.broken) is not None:
            raise _broken(reason)
        if self._closing:
            raise Transient("the engine is closing", remedy="send the request to another server")
        if (waiting := self.queued(kind)) >= self.settings.max_queue:
            raise Exhausted(
                f"{waiting} requests wait already",
                remedy="try again later or add servers",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def _queue(self, kind: Kind, task: EngineTask[Any]) -> EngineTask[Any]:
        with self._wake:
            self._check_open(kind)
            self._unfinished.add(task)
            task.future.add_done_callback(lambda _: self._unfinished.discard(task))
            self._queues[kind].put(task)
            self._wake.notify()
        return task

    def _fail_unfinished(self, reason: str) -> None:
        """End every task: the engine is broken."""
        log.error("engine_broken", reason=reason, tasks=len(self._unfinished))
        for task in list(self._unfinished):
            task.fail(_broken(reason))

    def _run(self) -> None:
        """The thread: whatever ends it, nobody waits for it any more."""
        try:
            compute_with(self.settings.threads)
            self._loop()
        except BaseException as error:  # whoever waits must not wait for ever, whatever it was
            log.exception("engine_thread_failed")
            self._health.give_up(f"the engine's thread has ended with {error!r}")
        else:
            self._fail_all(Transient("the engine was closed", remedy="send the request again"))
        finally:
            self._health.end()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._drop_cancelled()
                self._report()
                while not (self._stopped or self._has_work()):
                    self._health.rest()
                    self._wake.wait()
                if self._stopped:
                    return
            self._health.alive()
            try:
                self._work()
            except SealError as error:
                self._fail_owners(error)
            except Exception as error:  # the loop's boundary: no request may end the engine
                log.exception("engine_work_failed", tasks=len(self._owners))
                self._fail_owners(Internal(f"the engine failed: {error!r}"))
            self._health.alive()

    @property
    def _stopped(self) -> bool:
        return self._closing or self._health.reason is not None

    def _report(self) -> None:
        for kind, queue in self._queues.items():
            metrics.engine_queue_length.labels(kind).set(len(queue))
        metrics.engine_slots_in_use.set(len(self._active))

    def _has_work(self) -> bool:
        return bool(
            self._active
            or self._written.tasks
            or any(map(len, (self._trainings, self._generations, self._evaluations)))
        )

    def _work(self) -> None:
        """Do one piece of work: a step of generation, a batch of evaluations or a training step."""
        with self._wake:
            others = bool(self._active or len(self._trainings) or len(self._evaluations))
            waits = bool(self._written.tasks or len(self._generations))
            generating = waits and (self._turn_seconds < GENERATION_TURN_SECONDS or not others)
            if generating:
                self._written.take(self._generations)
            evaluations = [] if generating else self._take_evaluations()
            if not generating and not evaluations:
                self._admit()
        started = time.monotonic()
        if generating:
            kind, self._owners = "generate", self._written.tasks
            self._written.step()
        elif evaluations:
            kind, self._owners = "evaluate", list(evaluations)
            self._evaluate(evaluations)
        else:
            kind, self._owners = "train", list(self._active.values())
            self._train_step()
        seconds = time.monotonic() - started
        self._turn_seconds = self._turn_seconds + seconds if generating else 0.0
        metrics.engine_busy_seconds.labels(kind).inc(seconds)

    def _take_evaluations(self) -> list[EngineTask[EvaluationResult]]:
        """A batch that shares the policy, once it is full, has waited long, or none could train."""
        first = next(iter(self._evaluations), None)
        if first is None:
            return []
        wanted = [task for task in self._evaluations if task.request.policy is first.request.policy]
        rows = sum(len(task.request.prompts) for task in wanted)
        training = bool(self._active or len(self._trainings))
        waited = _waited(first)
        if (
            training
            and rows < self.settings.evaluation_rows
            and waited < MAX_EVALUATION_WAIT_SECONDS
        ):
            return []
        batch: list[EngineTask[EvaluationResult]] = []
        used = 0
        while (
            task := self._evaluations.take(lambda task: task.request.policy is first.request.policy)
        ) is not None:
            batch.append(task)
            used += len(task.request.prompts)
            if used >= self.settings.evaluation_rows:
                break
        return batch

    def _evaluate(self, batch: list[EngineTask[EvaluationResult]]) -> None:
        results = evaluate(
            self._model,
            [task.request for task in batch],
            max_rows=self.settings.evaluation_rows,
            cancelled=lambda index: batch[index].cancelled or self._closing,
        )
        if self._closing:
            raise Transient("the engine was closed", remedy="send the request again")
        for task, result in zip(batch, results, strict=True):
            metrics.generated_tokens.inc(result.tokens)
            if task.cancelled:
                task.future.set_exception(
                    Transient("the request was cancelled", remedy="send it again")
                )
                continue
            if task.on_progress is not None:
                task.on_progress(len(result.answers))
            task.future.set_result(result)

    def _admit(self) -> None:
        """Fill free slots with waiting trainings that fit the running batch.

        Start a batch of another shape once the old one is empty.
        """
        self._owners = list(self._active.values())
        if (self._batch is None or not self._batch.jobs) and len(self._trainings):
            head = next(iter(self._trainings))
            first = head.request
            if self._batch is None or not self._batch.fits(first):
                self._batch, self._owners = (
                    None,
                    [head],
                )  # the old memory goes before the next is made
                self._limits = self._budget.limits(first.lora, first.policy)
                self._batch = self._new_batch(first)
        batch = self._batch
        if batch is None:
            return

        turn = next(iter(self._trainings), None)
        if (
            turn is not None
            and not batch.fits(turn.request)
            and _waited(turn) > MAX_TRAINING_WAIT_SECONDS
        ):
            return  # let the batch run empty

        def fits(task: EngineTask[Any]) -> bool:
            return batch.fits(task.request)

        missing = sum(map(fits, self._trainings)) - batch.free_slots
        if missing > 0 and batch.slots < self._limits.slots:
            batch.grow(min(self._limits.slots, batch.slots + missing))
        while batch.free_slots and (task := self._trainings.take(fits)) is not None:
            self._active[id(task.job)] = task
            self._owners.append(task)
            batch.admit(task.job)

    def _new_batch(self, request: TrainingRequest) -> TrainingBatch:
        fitting = sum(
            task.request.policy is request.policy and task.request.lora == request.lora
            for task in self._trainings
        )
        return TrainingBatch(
            self._model,
            slots=min(self._limits.slots, max(1, fitting)),
            rank=request.lora.rank,
            targets=request.lora.target_modules,
            policy=request.policy,
            max_pass_tokens=self.settings.max_pass_tokens,
            activation_bytes=self._limits.activation_bytes,
        )

    def _train_step(self) -> None:
        if self._batch is None:
            return
        metrics.training_steps.inc(len(self._batch.jobs))
        for job, result in self._batch.step():
            self._active.pop(id(job)).future.set_result(result)
        self._keep_checkpoints(self._batch)

    def _keep_checkpoints(self, batch: TrainingBatch) -> None:
        """Between steps: copy the trainings that are due.

        A suspended one leaves its slot with that copy.
        """
        for slot, job in list(batch.jobs.items()):
            if (
                job.checkpoints is not None
                and (suspended := job.checkpoints.after_step(job, batch.state(slot))) is not None
            ):
                batch.remove(slot)
                self._active.pop(id(job)).future.set_exception(suspended)

    def _drop_cancelled(self) -> None:
        """Take cancelled trainings out of their slots and cancelled requests out of the queues."""
        if self._batch is not None:
            for slot, job in list(self._batch.jobs.items()):
                if self._active[id(job)].cancelled:
                    self._batch.remove(slot)
                    self._active.pop(id(job)).future.set_result(job.result(Outcome.CANCELLED, None))
        self._written.drop_cancelled()
        while (task := self._trainings.take(lambda task: task.cancelled)) is not None:
            task.future.set_result(task.job.result(Outcome.CANCELLED, None))
        while (
            task := self._trainings.take(
                lambda task: task.job.checkpoints is not None and task.job.checkpoints.suspended
            )
        ) is not None:
            task.future.set_exception(Suspended.after(0))
        for queue in (self._generations, self._evaluations):
            while (task := queue.take(lambda task: task.cancelled)) is not None:
                task.future.set_exception(
                    Transient("the request was cancelled", remedy="send it again")
                )

    def _fail_owners(self, error: SealError) -> None:
        """End the tasks of the work in hand with its error.

        A failed step gives up the whole batch: its gradients may be half formed.
        """
        for task in self._owners:
            if not task.future.done():
                task.future.set_exception(error)
        if any(task in self._owners for task in self._active.values()):
            self._batch = None
            self._active.clear()
        if any(task in self._owners for task in self._written.tasks):
            self._written.abandon()
        self._trainings.take(
            lambda task: task.future.done()
        )  # the one that no batch could be made for

    def _fail_all(self, error: SealError) -> None:
        self._owners = [*self._active.values(), *self._written.tasks]
        for queue in (self._trainings, self._generations, self._evaluations):
            while (task := queue.take()) is not None:
                self._owners.append(task)
        self._fail_owners(error)


def _broken(reason: str) -> Transient:
    return Transient(
        f"the engine is broken: {reason}", remedy="send the same request to another server"
    )


def _waited(task: EngineTask[Any]) -> float:
    """Seconds since a task was queued."""
    return time.monotonic() - task.queued_at
