"""The engine: one frozen base model, one thread that owns it, three kinds of work that share it.

Callers hand in requests from any thread and get a task with a future. The thread takes, in this
order: one step of the running generation; evaluation, once enough rows wait or no training could
run meanwhile; one training step. So adapters that finish training pile up until one decode can
serve them all. A generation that goes on and on lets one piece of other work pass from time to
time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch

from seal.bases import BaseReference
from seal.engine.allocator import keep_freed_memory
from seal.engine.available import usable_bytes
from seal.engine.budget import MIB, REMEDY_MEMORY, MemoryBudget
from seal.engine.checkpointing import Checkpoints, job_checkpoints
from seal.engine.convert import no_progress_bars
from seal.engine.door import check_adapter, check_evaluation, check_generation
from seal.engine.evaluation import Evaluation
from seal.engine.evaluations import Evaluations
from seal.engine.faults import DeviceLost
from seal.engine.generation import Generation
from seal.engine.generations import Generations
from seal.engine.health import Health
from seal.engine.job import make_job
from seal.engine.limits import ModelLimits, limits_of
from seal.engine.memory import MemoryEstimate
from seal.engine.meters import follow, resident_bytes
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
from seal.engine.trainings import Trainings, TrainingTask, drop_unwanted_trainings
from seal.errors import Exhausted, InvalidInput, Transient
from seal.metrics import metrics
from seal.prompts import Prompt
from seal.remedies import engine_setting
from seal.settings import EngineSettings, LoraSettings

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 2.0
"""When a caller who met a full queue may ask again."""
GENERATION_TURN_SECONDS = 5.0
"""After so much generation, one evaluation batch or training step comes in between if one waits."""


class Engine:
    """Trains, generates and evaluates on one base model. Safe to call from any thread."""

    holds_to_schema = False
    """It has no structured decoding: edits that have a schema are written freely, and parsed."""
    max_lora_rank = 0
    """It asks with adapters of any rank; `EngineSettings.max_rank` bounds what it trains."""

    def __init__(
        self, model: FrozenModel, settings: EngineSettings, *, memory_bytes: int | None = None
    ) -> None:
        """`memory_bytes`: what the engine may take in all where the settings do not say.

        None: what is free now and the base model.
        Raises InvalidInput naming `engine.slots` if not even one fits.
        """
        self.name, self.settings = model.name, settings
        if memory_bytes is None:
            memory_bytes = (
                settings.memory_bytes or usable_bytes(settings.device) + model.size.base_bytes
            )
        self._budget = MemoryBudget(model.size, settings, memory_bytes)
        self._model = model
        self._queues: dict[Kind, FairQueue[Any]] = {kind: FairQueue() for kind in KINDS}
        self._unfinished: set[EngineTask[Any]] = set()
        """Every task that has not ended, waiting or in hand."""
        self._health = Health(stall_seconds=settings.stall_seconds, on_broken=self._fail_unfinished)
        self._trainings = Trainings(model, settings, self._budget, alive=self._health.alive)
        self._generations = Generations(
            model, self._budget, max_rows=settings.generation_rows, alive=self._health.alive
        )
        self._evaluations = Evaluations(
            model,
            settings,
            self._budget,
            alive=self._health.alive,
            stopped=lambda: self._stopped,
        )
        self._turn_seconds = 0.0
        """How long the generation has had the thread."""
        self._wake = threading.Condition()
        self._closing = False
        self._describe(memory_bytes)
        self._thread = threading.Thread(target=self._run, name="seal-engine", daemon=True)
        self._thread.start()
        log.info(
            "engine_memory",
            dtype=dtype_name(model.dtype),
            needed_mib=self.memory.total // MIB,
            limit_mib=memory_bytes // MIB,
            parts=str(self.memory),
        )
        if self._budget.slots < settings.slots:
            log.warning(
                "memory has no room for all slots",
                slots=self._budget.slots,
                wanted=settings.slots,
                remedy=REMEDY_MEMORY,
            )

    def _describe(self, memory_bytes: int) -> None:
        """What the metrics say of it from now on; who scrapes them asks for the memory in use.

        That counts what the memory model leaves out, Python and libraries: so do the other two.
        """
        device = self._model.device
        beside = max(0.0, _held_bytes(device) - self._model.size.base_bytes)
        metrics.engine_slots.set(self._budget.slots)
        metrics.engine_memory_estimate_bytes.set(beside + self.memory.total)
        metrics.engine_memory_limit_bytes.set(beside + memory_bytes)
        metrics.engine_memory_bytes.set_function(lambda: _held_bytes(device))

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

        Above `engine.stallSeconds` the engine counts as broken.
        """
        return self._health.silent_seconds

    def queued(self, kind: Kind) -> int:
        """Requests of a kind that wait; Exhausted refuses more than `engine.maxQueue`."""
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
                remedy=f"set {engine_setting('dtype', 'auto')}",
            )
        memory_bytes = settings.memory_bytes or usable_bytes(settings.device)
        MemoryBudget(
            FrozenModel.size_on_disk(directory, name=name, dtype=dtype), settings, memory_bytes
        )
        with no_progress_bars():
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

    @property
    def limits(self) -> ModelLimits:
        """What can be asked of it at all."""
        return limits_of(self._model, self.settings)

    def row_tokens(self, examples: Sequence[tuple[str | Prompt, str]]) -> list[int]:
        """Tokens of rows as a training would lay them out. Any thread.

        Raises InvalidInput for a chat where the model has no chat template.
        """
        return [self._model.text.example(*example).length for example in examples]

    def train(
        self,
        request: TrainingRequest,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> EngineTask[TrainingResult]:
        """Queue a training. `on_progress` is called from the engine's thread after every step.

        With `checkpoints` its state is handed out now and then, and it may go on from such a state.
        Raises InvalidInput for what can never be trained (naming the field), UnfitItem for an item
        that is at fault, Exhausted when the queue is full, Transient when the engine has stopped.
        """
        self._check_open("train")
        if self.settings.slots == 0:
            raise InvalidInput(
                "this engine trains nothing",
                field="engine.slots",
                remedy=f"send trainings to a trainer, or raise {engine_setting('slots')}",
            )
        if request.lora.rank > self.settings.max_rank:
            raise InvalidInput(
                f"rank {request.lora.rank} is larger than the engine's largest, "
                f"{self.settings.max_rank}",
                field="lora.rank",
                remedy=f"ask for a smaller rank or raise {engine_setting('max_rank')}",
            )
        if request.policy is not None:
            check_adapter(self._model, request.policy, field="policy")
        self._budget.check_request(request.lora, request.policy)
        job = make_job(self._model, request, max_row_tokens=self.settings.max_row_tokens)
        kept = None if checkpoints is None else job_checkpoints(checkpoints, self._model, job)
        task = TrainingTask(request.run, request, on_progress, job, checkpoints=kept)
        return self._queue("train", task)

    def shape_refusal(self, lora: LoraSettings) -> str:
        """Why memory has no room for one adapter of a shape on the base model; empty if it has."""
        if not set(lora.target_modules) <= set(self.limits.target_modules):
            return ""  # there is no such adapter
        try:
            self._budget.check_request(lora, None)
        except InvalidInput as error:
            return str(error)
        return ""

    def generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> EngineTask[GenerationResult]:
        """Queue a generation.

        `on_progress(samples done, tokens)` is called from the engine's thread, and so is, for a
        request of one sample, `on_text(text)`: with all of it that no later token changes, whenever
        that has grown, at last with the whole. Raises as `train`.
        """
        self._check_open("generate")
        if request.policy is not None:
            check_adapter(self._model, request.policy, field="policy")
        generation = Generation(self._model, request, streams=on_text is not None)
        check_generation(self._model, self._budget, generation)
        task: EngineTask[GenerationResult] = EngineTask(
            request.run, request, on_progress, generation, on_text
        )
        return self._queue("generate", task)

    def evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None = None
    ) -> EngineTask[EvaluationResult]:
        """Queue an evaluation. `on_progress(queries done)` is called from the engine's thread.

        Raises as `train`.
        """
        self._check_open("evaluate")
        for adapter, field in ((request.policy, "policy"), (request.adapter, "adapter")):
            if adapter is not None:
                check_adapter(self._model, adapter, field=field)
                self._budget.check_stacked(adapter, field=field)
        evaluation = Evaluation(self._model, request)
        check_evaluation(self._model, self._budget, evaluation)
        return self._queue("evaluate", EngineTask(request.run, request, on_progress, evaluation))

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
            follow(kind, task)
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
        except DeviceLost as error:
            self._health.give_up(f"the device does not answer any more: {error}")
        except BaseException as error:  # whoever waits must not wait for ever, whatever it was
            log.exception("engine_thread_failed")
            self._health.give_up(f"the engine's thread has ended with {error!r}")
        finally:
            self._health.end()
            for task in list(self._unfinished):
                task.fail(Transient("the engine was closed", remedy="send the request again"))

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._drop_unwanted()
                self._report()
                while not (self._stopped or self._has_work()):
                    self._health.rest()
                    self._wake.wait()
                if self._stopped:
                    return
            self._health.alive()
            self._work()

    @property
    def _stopped(self) -> bool:
        return self._closing or self._health.reason is not None

    def _has_work(self) -> bool:
        return bool(
            len(self._trainings) or self._generations.tasks or any(map(len, self._queues.values()))
        )

    def _report(self) -> None:
        for kind, queue in self._queues.items():
            metrics.engine_queue_length.labels(kind).set(len(queue))
        metrics.engine_slots_in_use.set(len(self._trainings))

    def _drop_unwanted(self) -> None:
        """Take out what was cancelled or has ended, in hand or waiting."""
        self._trainings.drop_unwanted()
        self._generations.drop_unwanted()
        drop_unwanted_trainings(self._queues["train"])
        for kind in ("generate", "evaluate"):
            while (task := self._queues[kind].take(lambda task: task.unwanted)) is not None:
                task.fail(Transient("the request was cancelled", remedy="send it again"))

    def _work(self) -> None:
        """Do one piece of work: a step of generation, a batch of evaluations or a training step."""
        training = bool(len(self._trainings) or len(self._queues["train"]))
        others = training or bool(len(self._queues["evaluate"]))
        started, kind = time.monotonic(), self._kind_in_turn(others)
        if kind == "generate":
            self._generations.take(self._queues["generate"])
            self._generations.step(held_elsewhere_bytes=self._trainings.held_bytes)
        else:
            held = self._trainings.held_bytes + self._generations.held_bytes
            batch = self._evaluations.take(
                self._queues["evaluate"], training=training, held_bytes=held
            )
            if batch:
                kind = "evaluate"
                self._evaluations.run(batch, held_bytes=held)
            else:
                self._trainings.admit(self._queues["train"])
                self._trainings.step(held_elsewhere_bytes=self._generations.held_bytes)
        seconds = time.monotonic() - started
        self._turn_seconds = self._turn_seconds + seconds if kind == "generate" else 0.0
        metrics.engine_busy_seconds.labels(kind, self._model.device.type).inc(seconds)
        metrics.engine_step_seconds.labels(kind).observe(seconds)

    def _kind_in_turn(self, others: bool) -> Kind:
        """Generation if there is any and it has not had the thread for long; else the rest."""
        waits = bool(self._generations.tasks or len(self._queues["generate"]))
        in_turn = self._turn_seconds < GENERATION_TURN_SECONDS or not others
        return "generate" if waits and in_turn else "train"


def _held_bytes(device: torch.device) -> float:
    """Memory that is in use: allocated on a GPU, else what the process holds of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return resident_bytes()


def _broken(reason: str) -> Transient:
    return Transient(
        f"the engine is broken: {reason}", remedy="send the same request to another server"
    )
