"""Generation in steps: the tasks that the engine writes at the moment.

Which of them join the running batch, and what becomes of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from seal.engine.budget import MemoryBudget
from seal.engine.faults import attempt, blame
from seal.engine.generation import Generation, GenerationBatch
from seal.engine.meters import begun
from seal.engine.model import FrozenModel
from seal.engine.queues import EngineTask, FairQueue
from seal.engine.requests import GenerationResult
from seal.errors import Transient, UnfitItem
from seal.metrics import metrics

Task = EngineTask[GenerationResult]


class Generations:
    """One batch of generation tasks at a time, written step by step.

    A batch that fails is cut in two and begun again, until who fails alone is found; that one is
    tried twice. Not thread-safe: the engine's thread owns them.
    """

    def __init__(
        self,
        model: FrozenModel,
        budget: MemoryBudget,
        *,
        max_rows: int,
        alive: Callable[[], None],
    ) -> None:
        """`alive` is called after every pass."""
        self._model, self._budget, self._max_rows, self._alive = model, budget, max_rows, alive
        self._batch: GenerationBatch | None = None
        self._written: dict[Task, Generation] = {}
        self._joining: list[Generation] = []
        self._apart: deque[list[Task]] = deque()
        """Groups of suspects, each to be written without company."""
        self._alone = False
        """A group of suspects is written: nobody joins."""
        self._tried: set[Task] = set()
        """Tasks that have failed alone once."""

    @property
    def tasks(self) -> list[EngineTask[Any]]:
        """Tasks that are not done."""
        return [*self._written, *(task for group in self._apart for task in group)]

    @property
    def held_bytes(self) -> int:
        """What the batch holds from step to step."""
        return 0 if self._batch is None else self._batch.held_bytes

    def take(self, queue: FairQueue[Task]) -> None:
        """Let tasks join at the next step.

        In the queue's order, as long as places are free and the next one has the batch's policy.
        """
        if not self._written and self._apart:
            self._alone = True
            for suspect in self._apart.popleft():
                self._join(suspect)
        if self._alone:
            return
        rows = sum(
            len(generation.all_rows) - generation.done for generation in self._written.values()
        )
        while rows < self._max_rows and (first := next(iter(queue), None)) is not None:
            running = next(iter(self._written), first)
            if first.request.policy is not running.request.policy or (task := queue.take()) is None:
                break
            begun("generate", task)
            self._join(task)
            rows += len(task.job.all_rows)

    def step(self, *, held_elsewhere_bytes: int = 0) -> None:
        """Write one token of each running row, tell all their progress, end the complete tasks."""
        if not self._written:
            return
        error = attempt(lambda: self._write(held_elsewhere_bytes), self._model.device)
        if error is not None:
            self._set_apart(error)
            return
        for task, generation in list(self._written.items()):
            task.tell(generation.done, generation.tokens)
            if text := generation.grown_text():
                task.say(text)
            if generation.complete:
                self._forget(task)
                metrics.generated_tokens.inc(generation.tokens)
                try:
                    task.succeed(generation.result())
                except UnfitItem as unfit:
                    task.fail(unfit)
        self._release()

    def drop_unwanted(self) -> None:
        """Forget tasks for which nobody waits; the others' rows stay as they are."""
        for task, generation in list(self._written.items()):
            if task.unwanted:
                if generation in self._joining:
                    self._joining.remove(generation)
                elif self._batch is not None:
                    self._batch.drop(generation)
                self._forget(task)
                task.fail(Transient("the request was cancelled", remedy="send it again"))
        self._release()

    def _join(self, task: Task) -> None:
        self._written[task] = task.job
        self._joining.append(task.job)

    def _write(self, held_elsewhere_bytes: int) -> None:
        if self._batch is None:
            policy = next(iter(self._written)).request.policy
            self._batch = GenerationBatch(
                self._model, policy, max_rows=self._max_rows, alive=self._alive
            )
        while self._joining:
            self._batch.add(self._joining.pop(0))
        longest = max(
            len(prompt) for generation in self._written.values() for prompt in generation.prompts
        )
        # half of what is free: a training may want the other half between two steps
        free = self._budget.cache_bytes(held_elsewhere_bytes, longest) // 2
        self._batch.step(cache_bytes=free)

    def _set_apart(self, error: Exception) -> None:
        """After a failure: cut the tasks in two groups, or give up one that was alone."""
        tasks = list(self._written)
        self._written.clear()
        self._joining.clear()
        self._release()
        if len(tasks) > 1:
            middle = len(tasks) // 2
            self._apart.extendleft([tasks[middle:], tasks[:middle]])
        elif tasks[0] in self._tried:
            self._forget(tasks[0])
            tasks[0].fail(blame(error, work="write"))
        else:
            self._tried.add(tasks[0])
            self._apart.appendleft(tasks)
        for task in tasks:
            task.job.restart()

    def _release(self) -> None:
        """Give the cache back once nothing is written."""
        if not self._written:
            self._batch, self._alone = None, False

    def _forget(self, task: Task) -> None:
        """A task has ended."""
        self._written.pop(task, None)
        self._tried.discard(task)
