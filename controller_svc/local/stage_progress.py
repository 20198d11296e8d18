"""How far an adaptation is, from what its tasks tell: a share of the whole and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from controller_svc.adaptations import Progress
from controller_svc.core import (
    Phase,
    RunStatus,
    StageStatus,
    share_done,
    share_of_stage,
    stages,
)
from controller_svc.worker.progress import TaskProgress
from seal.records import Stage
from seal.settings import AdaptationSpec

INTERVAL_SECONDS = 1.0
"""Shortest time between two reports of the same stage: every watcher gets each of them."""
MIN_PERCENT_FOR_PACE = 1.0
"""What is left of a stage down to which its tasks' estimates say something about the others."""


class StageProgress:
    """Follows one adaptation in this process."""

    def __init__(
        self, spec: AdaptationSpec, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = stages(spec)
        self._clock = clock
        self._seconds_per_percent: float | None = None
        self._told = float("-inf")
        self._stage: Stage | None = None
        self._current: StageStatus | None = None
        self._tasks: dict[int, TaskProgress] = {}
        self._percent = 0.0

    def enter(self, status: RunStatus) -> Progress:
        """The stage that the status is at, of which nothing is known yet."""
        if status.current is None or status.stage is not self._stage:
            self._tasks = {}
        self._stage, self._current = status.stage, status.current
        if status.current is None and status.phase.terminal:
            return Progress(percent=100.0 if status.phase is Phase.COMPLETE else self._percent)
        return self._progress()

    def update(self, task: TaskProgress) -> Progress | None:
        """What to tell about a task's report; None if the last was told only now."""
        if task.stage is not self._stage:
            return None
        self._tasks[task.shard] = task
        now = self._clock()
        if now - self._told < INTERVAL_SECONDS:
            return None
        self._told = now
        return self._progress()

    def _progress(self) -> Progress:
        tasks = self._tasks.values()
        self._percent = max(self._percent, self._percent_at(self._here()))
        steps = sum(task.trained_steps + task.resumed_steps for task in tasks)
        shards = self._current.shards if self._current else 1
        fraction = sum(task.training_fraction for task in tasks) / shards
        return Progress(
            stage=str(self._stage or ""),
            percent=self._percent,
            eta_seconds=self._eta_seconds(),
            edits_done=sum(task.edits_done for task in tasks),
            edits_total=sum(task.edits_total for task in tasks),
            steps_done=steps,
            steps_total=max(steps, round(steps / fraction)) if fraction else 0,
            answers_done=sum(task.evaluated_queries for task in tasks),
            answers_total=sum(task.queries_total for task in tasks),
        )

    def _here(self) -> float:
        """Share of the stage that is done, in [0, 1]."""
        if self._current is None:
            return 0.0
        told = {shard: task.share for shard, task in self._tasks.items()}
        return share_of_stage(self._current, told)

    def _percent_at(self, share: float) -> float:
        """What of the whole is done once this share of the stage is."""
        if self._stage is None:
            return 0.0
        return min(100.0, 100.0 * share_done(self._plan, (0, self._stage), share))

    def _eta_seconds(self) -> float | None:
        """Time left, if all of the rest goes as fast as its tasks expect of this stage's.

        While they cannot say, as fast as they expected last; None if they never did.
        """
        left_here = self._percent_at(1.0) - self._percent_at(self._here())
        expected = [task.eta_seconds for task in self._tasks.values() if task.eta_seconds]
        if expected and left_here >= MIN_PERCENT_FOR_PACE:
            self._seconds_per_percent = max(expected) / left_here
        if self._seconds_per_percent is None:
            return None
        return self._seconds_per_percent * (100.0 - self._percent)
