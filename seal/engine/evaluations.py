"""Which evaluations run together, and what becomes of each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from seal.engine.budget import MemoryBudget
from seal.engine.evaluation import evaluate
from seal.engine.faults import attempt, blame
from seal.engine.meters import begun
from seal.engine.model import FrozenModel
from seal.engine.queues import EngineTask, FairQueue
from seal.engine.requests import EvaluationResult
from seal.errors import Transient, UnfitItem
from seal.metrics import metrics
from seal.settings import EngineSettings

MAX_EVALUATION_WAIT_SECONDS = 30.0
"""An evaluation that waited this long runs even if the batch is not full and trainings are
active."""

Task = EngineTask[EvaluationResult]


class Evaluations:
    """Batches of evaluation tasks. Not thread-safe: the engine's thread owns it."""

    def __init__(
        self,
        model: FrozenModel,
        settings: EngineSettings,
        budget: MemoryBudget,
        *,
        alive: Callable[[], None],
        stopped: Callable[[], bool],
    ) -> None:
        """`alive` is called at every batch and after its every pass.

        `stopped` says that no result is wanted any more.
        """
        self._model, self._max_rows, self._budget = model, settings.evaluation_rows, budget
        self._alive, self._stopped = alive, stopped

    def take(self, queue: FairQueue[Task], *, training: bool, held_bytes: int) -> list[Task]:
        """A batch on one policy, once it is full or has waited long, or nothing else is to train.

        It is no larger than its stack of adapters fits beside what is held already.
        """
        first = next(iter(queue), None)
        if first is None:
            return []

        coming = [task for task in queue if task.request.policy is first.request.policy]
        rows = sum(len(task.request.prompts) for task in coming)
        waited = time.monotonic() - first.queued_at
        if training and rows < self._max_rows and waited < MAX_EVALUATION_WAIT_SECONDS:
            return []
        batch: list[Task] = []
        used = 0
        for task in coming:
            adapters = [other.request.adapter for other in (*batch, task)]
            if used >= self._max_rows or (
                batch and not self._budget.stack_fits(adapters, held_bytes)
            ):
                break
            queue.take(lambda waiting: waiting is task)  # noqa: B023 - called at once
            begun("evaluate", task)
            batch.append(task)
            used += len(task.request.prompts)
        return batch

    def run(self, batch: list[Task], *, held_bytes: int) -> None:
        """Answer and score a batch.

        One that fails is cut in two until who fails alone is found; that one is tried twice.
        """
        groups, tried = deque([batch]), set[Task]()
        while groups and not self._stopped():
            group = groups.popleft()
            self._alive()
            error = attempt(lambda: self._run(group, held_bytes), self._model.device)  # noqa: B023 - called at once
            if error is None or self._stopped():
                continue
            if len(group) > 1:
                middle = len(group) // 2
                groups.extendleft([group[middle:], group[:middle]])
            elif group[0] in tried:
                group[0].fail(blame(error, work="evaluate"))
            else:
                tried.add(group[0])
                groups.appendleft(group)

    def _run(self, tasks: list[Task], held_bytes: int) -> None:
        def cancelled(index: int) -> bool:
            return tasks[index].unwanted or self._stopped()

        adapters = [task.request.adapter for task in tasks]
        longest = max(len(prompt) for task in tasks for prompt in task.job.prompts)
        ended = evaluate(
            self._model,
            [task.job for task in tasks],
            max_rows=self._max_rows,
            cache_bytes=self._budget.cache_bytes(
                held_bytes + self._budget.stack_bytes(adapters), longest
            ),
            cancelled=cancelled,
            alive=self._alive,
        )
        if self._stopped():
            return
        for task, result in zip(tasks, ended, strict=True):
            if task.cancelled:
                task.fail(Transient("the request was cancelled", remedy="send it again"))
            elif isinstance(result, UnfitItem):
                task.fail(result)
            else:
                metrics.generated_tokens.inc(result.tokens)
                task.tell(len(result.answers))
                task.succeed(result)
