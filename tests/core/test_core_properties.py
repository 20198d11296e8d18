"""The state machine under any order of results, failures, crashes, stale views and restarts."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller_svc.core import (
    AttemptBudget,
    Observed,
    Phase,
    RunStatus,
    StartTask,
    StopTask,
    TaskFailed,
    TaskResult,
    TaskSucceeded,
    decide,
    new_status,
    stages,
)
from seal.records import AdapterReference, ShardSummary
from seal.settings import RunSpec

BUDGET = AttemptBudget(attempts=3)
ORDER = [Phase.PENDING, Phase.RUNNING, Phase.COMPLETE]


def summary_of(task: StartTask) -> ShardSummary:
    """What a task delivers depends on the work, not on the attempt."""
    keeps = task.stage == "improve" and task.round != 2
    return ShardSummary(
        name=task.name,
        stage=task.stage.value,
        round=task.round,
        shard=task.shard,
        attempt=task.attempt,
        seconds=0.0,
        inner_loops_run=2,
        inner_loops_resumed=0,
        outcomes={"ok": 2},
        tokens={},
        engine_seconds={"train": 0.1 * (task.shard + 1)},
        policy=AdapterReference(path="p", sha256=str(task.round) * 64) if keeps else None,
    )


class World:
    """A controller with a world that loses, repeats, delays and reorders.

    Every decision is checked.
    """

    def __init__(self, spec: RunSpec, *, seed: int, failures: float, crashes: float) -> None:
        self.spec, self.random, self.failures, self.crashes = (
            spec,
            random.Random(seed),
            failures,
            crashes,
        )
        self.saved = new_status(spec, run="p")
        self.live: dict[str, StartTask] = {}
        self.results: dict[str, TaskResult] = {}
        self.failed: dict[tuple[int, str, int], int] = {}
        self.started: list[str] = []

    def step(self) -> None:
        observed = Observed(
            live=frozenset(self.live), results=self._view(), now_seconds=self.random.random()
        )
        decision = decide(self.spec, self.saved, observed, budget=BUDGET)
        self._check(self.saved, decision.status)
        again = decide(self.spec, decision.status, observed, budget=BUDGET)
        assert again == decision, "calling it twice changes nothing"
        if self._crashes():
            return
        self.saved = RunStatus.model_validate_json(decision.status.model_dump_json())
        for action in decision.actions:
            if self._crashes():
                return
            if isinstance(action, StopTask):
                self.live.pop(action.name, None)
            else:
                self._start(action)
        for name in self.random.sample(sorted(self.live), k=self.random.randint(0, len(self.live))):
            self._end(name)

    def _start(self, task: StartTask) -> None:
        assert (task.stage, task.round, task.shard) not in {
            (t.stage, t.round, t.shard) for t in self.live.values()
        }
        self.live[task.name] = task
        self.started.append(task.name)

    def _end(self, name: str) -> None:
        task = self.live[name]
        if self.random.random() < 0.8:
            del self.live[name]  # else its pod lingers as a ghost until it is stopped
        key = (task.round, task.stage.value, task.shard)
        roll = self.random.random()
        if roll < self.failures and self.failed.get(key, 0) < BUDGET.attempts - 1:
            self.failed[key] = self.failed.get(key, 0) + 1
            self.results[name] = TaskFailed(permanent=False, reason="Transient", message="again")
        elif roll < 0.9:
            self.results[name] = TaskSucceeded(summary=summary_of(task))

    def _view(self) -> dict[str, TaskResult]:
        """Results arrive late and in any order; local mode forgets them when its process dies."""
        names = [name for name in self.results if self.random.random() < 0.8]
        self.random.shuffle(names)
        return {name: self.results[name] for name in names}

    def _crashes(self) -> bool:
        if self.random.random() >= self.crashes:
            return False
        if self.random.random() < 0.5:
            self.live, self.results = {}, {}
        return True

    def _check(self, before: RunStatus, after: RunStatus) -> None:
        plan = stages(self.spec)
        assert ORDER.index(after.phase) >= ORDER.index(before.phase)
        if before.phase.terminal:
            assert after == before
        if before.stage is not None and after.stage is not None:
            assert plan.index((after.round, after.stage)) >= plan.index(
                (before.round, before.stage)
            )
        assert (
            len(after.rounds) >= len(before.rounds)
            and after.policies[: len(before.policies)] == before.policies
        )
        shards = [task.shard for task in after.tasks]
        assert shards == sorted(set(shards)), "one wanted task per shard"
        assert all(task.attempt <= BUDGET.attempts for task in after.tasks)


def result(status: RunStatus) -> object:
    """What must not depend on faults and order: all but clocks, names and attempts."""
    rounds = [
        (r.round, r.outcomes, r.engine_seconds, r.inner_loops_run, r.kept) for r in status.rounds
    ]
    return status.phase, status.policies, rounds, status.counters.tasks_succeeded


SPECS = st.builds(RunSpec, rounds=st.integers(0, 3), shards=st.integers(1, 4))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SPECS, st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.5))
def test_any_order_of_results_failures_and_crashes_converges_to_the_same_end(
    spec: RunSpec, seed: int, failures: float, crashes: float
) -> None:
    calm, stormy = (
        World(spec, seed=0, failures=0, crashes=0),
        World(spec, seed=seed, failures=failures, crashes=crashes),
    )
    for world in (calm, stormy):
        for _ in range(5000):
            world.step()
            if world.saved.phase.terminal:
                break
    assert calm.saved.phase is Phase.COMPLETE
    assert result(stormy.saved) == result(calm.saved)


@settings(max_examples=30, deadline=None)
@given(SPECS, st.integers(0, 2**32))
def test_the_same_world_gets_the_same_actions_in_the_same_order(spec: RunSpec, seed: int) -> None:
    runs = [World(spec, seed=seed, failures=0.3, crashes=0.2) for _ in range(2)]
    for world in runs:
        for _ in range(200):
            world.step()
    assert runs[0].started == runs[1].started
    assert runs[0].saved == runs[1].saved


@settings(max_examples=50, deadline=None)
@given(SPECS, st.integers(0, 2**32), st.integers(0, 40))
def test_after_a_permanent_failure_nothing_is_wanted_ever_again(
    spec: RunSpec, seed: int, when: int
) -> None:
    world = World(spec, seed=seed, failures=0.2, crashes=0.1)
    for _ in range(when):
        world.step()
    running = [
        task
        for task in world.saved.tasks
        if task.state == "Running" and not world.saved.phase.terminal
    ]
    if not running:
        return
    poison = {running[0].name: TaskFailed(permanent=True, reason="InvalidInput", message="no")}
    ended = decide(
        spec, world.saved, Observed(live=frozenset(world.live), results=poison), budget=BUDGET
    )
    assert ended.status.phase is Phase.FAILED
    assert {action.name for action in ended.actions} == set(world.live)
    assert all(isinstance(action, StopTask) for action in ended.actions)
    later = decide(spec, ended.status, Observed(results=world.results), budget=BUDGET)
    assert later.status == ended.status and later.actions == ()
