"""What a task tells while it works: one small snapshot per change.

Progress bars, heartbeats and CR status alike are made from it. Every snapshot is complete in
itself: a reader may skip any of them. Work that an earlier attempt had finished counts as done from
the first snapshot on, but not for the estimate of the time that is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seal.records import Stage
from seal.runs.task import ShardTask

MIN_FRACTION_FOR_ETA = 0.05
"""Share of the work from which on the time that it took says something about the rest."""
MIN_INTERVAL_SECONDS = 0.1
"""Shortest time between two snapshots: dozens of streams report several times a second each."""
_COSTS = {"edits": 0.2, "trainings": 0.55, "answers": 0.25}
"""Rough share of a task's time by kind of work; nothing but what is shown depends on it."""


@dataclass(frozen=True, kw_only=True)
class TaskProgress:
    """How far one task is."""

    name: str
    stage: Stage
    round: int
    shard: int
    edits_done: int = 0
    """Edits written."""
    edits_total: int = 0
    generated_tokens: int = 0
    """Tokens of edits sampled in this attempt."""
    trained_steps: int = 0
    """Optimiser steps done in this attempt."""
    resumed_steps: int = 0
    """Steps that checkpoints of earlier attempts brought."""
    trainings_done: int = 0
    """Adapters trained."""
    trainings_total: int = 0
    training_fraction: float = 0.0
    """Share of all training that is done, in [0, 1]: running trainings count by their steps."""
    evaluated_queries: int = 0
    """Questions answered."""
    queries_total: int = 0
    inner_loops_done: int = 0
    """Inner loops finished, those of earlier attempts included."""
    inner_loops_resumed: int = 0
    """Of these, found finished."""
    inner_loops_total: int = 0
    eta_seconds: float | None = None
    """Estimated seconds to the task's end; None if unknown."""

    @property
    def share(self) -> float:
        """What is done of the task's work, in [0, 1]; 0 while none is planned."""
        return self.share_by(_COSTS)

    def share_by(self, costs: Mapping[str, float]) -> float:
        """`share`, where the kinds of work cost what `costs` says, in any unit."""
        work = {
            "edits": (self.edits_done, self.edits_total),
            "trainings": (self.training_fraction * self.trainings_total, self.trainings_total),
            "answers": (self.evaluated_queries, self.queries_total),
        }
        return _done(work, costs) or 0.0


class Meter:
    """Counts one task's work and tells it."""

    def __init__(
        self,
        task: ShardTask,
        tell: Callable[[TaskProgress], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._task, self._tell, self._clock = task, tell, clock
        self._started = clock()
        self._told = float("-inf")
        self._edits: dict[str, tuple[int, int]] = {}
        self._steps: dict[str, tuple[int, int]] = {}
        self._resumed: dict[str, int] = {}
        self._queries: dict[str, int] = {}
        self._edits_before = self._trainings_before = self._queries_before = 0
        self._edits_total = self._trainings_total = self._queries_total = 0
        self._loops_done = self._loops_resumed = self._loops_total = self._trainings_done = 0

    def plan(self, *, edits: int, trainings: int, queries: int, inner_loops: int) -> None:
        """The work of the task in all, finished or not."""
        self._edits_total, self._trainings_total = edits, trainings
        self._queries_total, self._loops_total = queries, inner_loops

    def dropped(self, *, trainings: int, queries: int) -> None:
        """Inner loops of the plan, one per training, that turn out not to be run."""
        self._trainings_total -= trainings
        self._loops_total -= trainings
        self._queries_total -= queries
        self.tell()

    def more(self, *, queries: int) -> None:
        """Work that was not known when the plan was made."""
        self._queries_total += queries
        self.tell()

    def found(
        self, *, edits: int = 0, trainings: int = 0, queries: int = 0, inner_loops: int = 0
    ) -> None:
        """Work that an earlier attempt had finished."""
        self._edits_before += edits
        self._trainings_before += trainings
        self._queries_before += queries
        self._loops_resumed += inner_loops
        self.tell()

    def generating(self, key: str, *, edits: int, tokens: int) -> None:
        """Edits and tokens that the request `key` has written so far."""
        self._edits[key] = (edits, tokens)
        self.tell()

    def training(self, key: str, *, step: int, total_steps: int) -> None:
        """Optimiser steps of the training `key`."""
        self._steps[key] = (step, max(total_steps, 1))
        self.tell()

    def training_resumed(self, key: str, *, step: int) -> None:
        """The training `key` goes on from a checkpoint.

        What lies before `step` was not done in this attempt.
        """
        self._resumed[key] = step

    def trained(self, key: str, *, steps: int) -> None:
        """The training `key` ended."""
        self._trainings_done += 1
        self.training(key, step=steps, total_steps=steps)

    def evaluating(self, key: str, *, queries: int) -> None:
        """Queries that the evaluation `key` has answered so far."""
        self._queries[key] = queries
        self.tell()

    def inner_loop_done(self, *, trainings_skipped: int = 0, queries_skipped: int = 0) -> None:
        """An inner loop is committed; one that had nothing to train or to ask says so."""
        self._loops_done += 1
        self._trainings_before += trainings_skipped
        self._queries_before += queries_skipped
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Send a snapshot, unless the last one is too young; `now` sends it anyway."""
        at = self._clock()
        if now or at - self._told >= MIN_INTERVAL_SECONDS:
            self._told = at
            self._tell(self.snapshot())

    def snapshot(self) -> TaskProgress:
        """How far the task is now."""
        elapsed = self._clock() - self._started
        edits = sum(done for done, _ in self._edits.values())
        queries = sum(self._queries.values())
        fractions = sum(step / total for step, total in self._steps.values())
        resumed = sum(self._resumed.get(key, 0) / total for key, (_, total) in self._steps.items())
        return TaskProgress(
            name=self._task.name,
            stage=self._task.stage,
            round=self._task.round,
            shard=self._task.shard,
            edits_done=min(self._edits_total, self._edits_before + edits),
            edits_total=self._edits_total,
            generated_tokens=sum(tokens for _, tokens in self._edits.values()),
            trained_steps=sum(
                step - self._resumed.get(key, 0) for key, (step, _) in self._steps.items()
            ),
            resumed_steps=sum(self._resumed.values()),
            trainings_done=min(
                self._trainings_total, self._trainings_before + self._trainings_done
            ),
            trainings_total=self._trainings_total,
            training_fraction=_share(self._trainings_before + fractions, self._trainings_total),
            evaluated_queries=min(self._queries_total, self._queries_before + queries),
            queries_total=self._queries_total,
            inner_loops_done=self._loops_resumed + self._loops_done,
            inner_loops_resumed=self._loops_resumed,
            inner_loops_total=self._loops_total,
            eta_seconds=self._eta(elapsed, edits, fractions - resumed, queries, resumed=resumed),
        )

    def _eta(
        self, elapsed: float, edits: float, trainings: float, queries: float, *, resumed: float
    ) -> float | None:
        """Seconds to the end if what is left goes as fast as what this attempt did."""
        work = {
            "edits": (edits, self._edits_total - self._edits_before),
            "trainings": (trainings, self._trainings_total - self._trainings_before - resumed),
            "answers": (queries, self._queries_total - self._queries_before),
        }
        fraction = _done(work, _COSTS)
        if fraction is None:
            return 0.0
        return None if fraction < MIN_FRACTION_FOR_ETA else elapsed * (1 - fraction) / fraction


def _done(work: Mapping[str, tuple[float, float]], costs: Mapping[str, float]) -> float | None:
    """Share that is done of (done, planned) by kind, in [0, 1]; None while nothing is planned."""
    planned = {kind: (done, total) for kind, (done, total) in work.items() if total > 0}
    whole = sum(costs[kind] for kind in planned)
    if not whole:
        return None
    parts = (costs[kind] * min(1.0, done / total) for kind, (done, total) in planned.items())
    return sum(parts) / whole


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 1.0
