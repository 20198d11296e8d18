"""Generation in steps: the tasks that the engine writes at the moment.

Which of them join the running batch, and what becomes of each.
"""

from __future__ import annotations

from typing import Any

from seal.engine.generation import Generation, GenerationBatch
from seal.engine.model import FrozenModel
from seal.engine.queues import EngineTask, FairQueue
from seal.engine.requests import GenerationResult
from seal.errors import Transient
from seal.telemetry import metrics


class Generations:
    """One batch of generation tasks at a time, written step by step.

    Not thread-safe: the engine's thread owns it.
    """

    def __init__(self, model: FrozenModel, *, max_rows: int) -> None:
        self._model, self._max_rows = model, max_rows
        self._batch: GenerationBatch | None = None
        self._written: dict[EngineTask[GenerationResult], Generation] = {}
        self._joining: list[Generation] = []

    @property
    def tasks(self) -> list[EngineTask[Any]]:
        """Tasks that are not done."""
        return list(self._written)

    def take(self, queue: FairQueue) -> None:
        """Let tasks join at the next step.

        In the queue's order, as long as places are free and the next one has the batch's policy.
        """
        rows = sum(
            len(generation.all_rows) - generation.done for generation in self._written.values()
        )
        while rows < self._max_rows and (first := next(iter(queue), None)) is not None:
            running = next(iter(self._written), first)
            if first.request.policy is not running.request.policy or (task := queue.take()) is None:
                break
            self._written[task] = task.job
            self._joining.append(task.job)
            rows += len(task.job.all_rows)

    def step(self) -> None:
        """Write one token of each running row, tell all progress and end what is complete."""
        if self._batch is None:
            policy = next(iter(self._written)).request.policy
            self._batch = GenerationBatch(self._model, policy, max_rows=self._max_rows)
        while self._joining:
            self._batch.add(self._joining.pop(0))
        self._batch.step()
        for task, generation in list(self._written.items()):
            if task.on_progress is not None:
                task.on_progress(generation.done, generation.tokens)
            if generation.complete:
                del self._written[task]
                metrics.generated_tokens.inc(generation.tokens)
                task.future.set_result(generation.result())
        self._release()

    def drop_cancelled(self) -> None:
        """End cancelled tasks; the others' rows stay as they are."""
        for task, generation in list(self._written.items()):
            if task.cancelled and self._batch is not None:
                self._batch.drop(generation)
                del self._written[task]
                task.future.set_exception(
                    Transient("the request was cancelled", remedy="send it again")
                )
        self._release()

    def abandon(self) -> None:
        """Forget everything; the caller ends the tasks."""
        self._written.clear()
        self._joining.clear()
        self._release()

    def _release(self) -> None:
        """Give the cache back once nothing is written."""
        if not self._written:
            self._batch = None
