"""A small in-memory engine with the real one's interface.

One worker thread, deterministic results, and knobs for what goes wrong. Its adapters are real
directories (config and safetensors), so that the services publish, fetch and verify real files.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import load_file, save_file

from seal.bases import BaseReference
from seal.engine import (
    Checkpoints,
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    GenerationResult,
    Sample,
    TaskState,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
)
from seal.errors import Exhausted, Transient
from seal.outcomes import Outcome
from seal.prompts import Prompt
from seal.settings import EngineSettings

MODEL = "tiny"


@dataclass(frozen=True)
class FakeAdapter:
    """What the fake engine trains: a digest of all that went in."""

    base: BaseReference
    weights: tuple[float, ...]
    rank: int = 8


def save_fake_adapter(adapter: FakeAdapter, directory: Path) -> None:
    """Write a directory of the shape that PEFT writes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": adapter.base.name, "sha256": adapter.base.sha256}),
        encoding="utf-8",
    )
    save_file(
        {"weights": numpy.array(adapter.weights, dtype=numpy.float32)},
        directory / "adapter_model.safetensors",
    )


def load_fake_adapter(directory: Path) -> FakeAdapter:
    """Read it back."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    weights = load_file(directory / "adapter_model.safetensors")["weights"]
    base = BaseReference(config["base_model_name_or_path"], config["sha256"])
    return FakeAdapter(base, tuple(float(value) for value in weights))


@dataclass
class FakeTask:
    """One request in the fake engine."""

    future: concurrent.futures.Future[Any] = field(default_factory=concurrent.futures.Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    training: bool = False

    def cancel(self) -> None:
        """As the real engine: at the next step, or at once while it waits in the queue."""
        self.cancelled.set()


class FakeEngine:
    """Interface of `seal.engine.Engine`."""

    holds_to_schema = False
    max_lora_rank = 0

    def __init__(
        self, *, name: str = MODEL, settings: EngineSettings | None = None, base_sha256: str = ""
    ) -> None:
        self.name, self.base = name, BaseReference(name, base_sha256)
        self.settings = settings or EngineSettings(generation_rows=4, max_queue=4)
        self.gate = threading.Event()
        """Requests start to work only while it is set."""
        self.gate.set()
        self.trained: list[TrainingRequest] = []
        self.generated: list[GenerationRequest] = []
        self.evaluated: list[EvaluationRequest] = []
        self.tasks: list[FakeTask] = []
        self.cancelled_tasks = 0
        self.answer: Callable[[EvaluationRequest, int], str] = lambda request, index: request.golds[
            index
        ]
        self.logit_difference = 1.0
        self.outcome = Outcome.OK
        self.final_loss = 0.5
        self.check: Callable[[Any], None] = lambda request: None
        """Raises what the engine refuses at its door."""
        self.between_words: Callable[[], object] = lambda: None
        """Called after each streamed word."""
        self.fault: Callable[[Any], None] = lambda request: None
        """Raises what goes wrong in the work on a request."""
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.waiting = 0
        """Requests that have not begun."""
        self.broken: str | None = None
        """Why it would never work again."""
        self.heartbeat_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="fake engine", daemon=True)
        self._thread.start()

    def queued(self, kind: str) -> int:
        """All kinds wait in one queue here."""
        return self.waiting

    def train(
        self,
        request: TrainingRequest,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> FakeTask:
        """Three steps, then an adapter made of a digest of the request."""
        return self._submit(request, lambda: self._train(request, on_progress), training=True)

    def generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> FakeTask:
        """A text that names prompt, seed and policy; streamed word by word."""
        return self._submit(request, lambda: self._generate(request, on_progress, on_text))

    def evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None = None
    ) -> FakeTask:
        """Answers by `self.answer`."""
        return self._submit(request, lambda: self._evaluate(request, on_progress))

    def drop_all(self) -> None:
        """What a closing engine does.

        Every waiting request ends cancelled, though nobody asked for it.
        """
        for task in self.tasks:
            task.cancel()

    def close(self) -> None:
        """End the thread."""
        self.gate.set()
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _submit(self, request: Any, work: Callable[[], Any], *, training: bool = False) -> FakeTask:
        if self.broken is not None:
            raise Transient(f"the engine is broken: {self.broken}", remedy="use another server")
        if self.waiting >= self.settings.max_queue:
            raise Exhausted(
                "the engine's queue is full",
                remedy="send the request again later",
                retry_after_seconds=2.0,
            )
        self.check(request)
        task = FakeTask(training=training)
        self.tasks.append(task)
        self.waiting += 1
        self._queue.put(lambda: self._run(task, request, work))
        return task

    def _run(self, task: FakeTask, request: Any, work: Callable[[], Any]) -> None:
        while not self.gate.wait(0.01) and not task.cancelled.is_set():
            pass
        self.waiting -= 1
        if task.cancelled.is_set():
            self.cancelled_tasks += 1
            if task.training:
                task.future.set_result(_cancelled())
            else:
                task.future.set_exception(
                    Transient("the request was cancelled", remedy="send it again")
                )
            return
        try:
            self.fault(request)
            task.future.set_result(work())
        except Exception as error:  # the engine's loop boundary
            task.future.set_exception(error)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

    def _train(
        self, request: TrainingRequest, on_progress: Callable[[TrainingProgress], None] | None
    ) -> TrainingResult:
        self.trained.append(request)
        for step in range(1, 4):
            if on_progress is not None:
                on_progress(
                    TrainingProgress(TaskState.RUNNING, step, 3, 1.0 / step, float(3 - step))
                )
        seedtext = repr(
            (
                request.examples,
                request.lora,
                request.optimizer,
                request.init_seed,
                request.order_seed,
                request.policy,
            )
        )
        digest = hashlib.sha256(seedtext.encode()).digest()
        adapter: Any = (
            FakeAdapter(self.base, tuple(float(byte) for byte in digest[:8]))
            if self.outcome is Outcome.OK
            else None
        )
        return TrainingResult(
            outcome=self.outcome,
            adapter=adapter,
            steps=3,
            final_loss=self.final_loss,
            tokens=30,
            seconds=0.1,
            engine_seconds=0.05,
        )

    def _generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None,
        on_text: Callable[[str], None] | None,
    ) -> GenerationResult:
        self.generated.append(request)
        policy = "base" if request.policy is None else "adapted"
        samples = tuple(
            tuple(
                Sample(f"{policy} edit {seed} on {_characters(prompt)}", seed, 5, False, -0.5)
                for seed in seeds
            )
            for prompt, seeds in zip(request.prompts, request.seeds, strict=True)
        )
        if on_progress is not None:
            on_progress(sum(map(len, samples)), 5 * sum(map(len, samples)))
        if on_text is not None:
            words = samples[0][0].text.split(" ")
            for count in range(1, len(words) + 1):
                on_text(" ".join(words[:count]))
                self.between_words()
        return GenerationResult(samples=samples, engine_seconds=(0.25,) * len(samples))

    def _evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None
    ) -> EvaluationResult:
        self.evaluated.append(request)
        if on_progress is not None:
            on_progress(len(request.prompts))
        return EvaluationResult(
            answers=tuple(self.answer(request, index) for index in range(len(request.prompts))),
            logprobs=tuple(-0.5 for _ in request.prompts),
            max_logit_difference=0.0 if request.adapter is None else self.logit_difference,
            tokens=4 * len(request.prompts),
            engine_seconds=0.2,
        )


def _characters(prompt: str | Prompt) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return len(prompt.text) + sum(len(message.content) for message in prompt.messages)


def _cancelled() -> TrainingResult:
    return TrainingResult(
        outcome=Outcome.CANCELLED,
        adapter=None,
        steps=0,
        final_loss=float("nan"),
        tokens=0,
        seconds=0.0,
        engine_seconds=0.0,
    )
