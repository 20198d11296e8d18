"""The state machine under any order of ends, failures, crashes, stale views and restarts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_adaptation import adaptation_spec, synthetic_result

from controller_svc.core import (
    AttemptBudget,
    FailedIndex,
    Observed,
    Phase,
    RunStatus,
    StageObserved,
    StartStage,
    StopStage,
    decide,
    events,
    format_ranges,
    new_status,
    parse_ranges,
    stages,
    sum_shards,
)
from seal.records import AdaptationCounts, AdapterReference, ShardSummary, Stage
from seal.settings import EditSettings, ImproveSettings, RunSpec, Spec

BUDGET = AttemptBudget(attempts=3)
ORDER = [Phase.PENDING, Phase.RUNNING, Phase.COMPLETE]


def summary_of(start: StartStage, shard: int) -> ShardSummary:
    """What a shard delivers depends on the work, not on the attempt."""
    keeps = start.stage is Stage.IMPROVE and start.round != 2
    return ShardSummary(
        name=start.name,
        stage=start.stage,
        round=start.round,
        shard=shard,
        attempt=start.attempt,
        seconds=0.0,
        inner_loops_run=2,
        inner_loops_resumed=0,
        outcomes={"ok": 2},
        tokens={},
        engine_seconds={"train": 0.1 * (shard + 1)},
        policy=AdapterReference(path="p", sha256=str(start.round) * 64) if keeps else None,
        counts=AdaptationCounts(held_out_questions=shard + 1),
        result=synthetic_result() if start.stage is Stage.ADAPT else None,
    )


@dataclass
class Job:
    """One attempt of a stage, as an Indexed Job shows it."""

    start: StartStage
    completed: set[int] = field(default_factory=set)
    failed: dict[int, FailedIndex] = field(default_factory=dict)
    gone: bool = False
    """Deleted; a ghost of a lost node may still write."""

    @property
    def ended(self) -> bool:
        return len(self.completed) + len(self.failed) == self.start.shards


class World:
    """A controller with a world that loses, repeats, delays and reorders.

    Every decision is checked.
    """

    def __init__(self, spec: Spec, *, seed: int, failures: float, crashes: float) -> None:
        self.spec, self.random = spec, random.Random(seed)
        self.failures, self.crashes = failures, crashes
        self.saved = new_status(spec, run="p")
        self.jobs: dict[str, Job] = {}
        self.ghosts: list[Job] = []
        self.summaries: dict[tuple[int, Stage, int], ShardSummary] = {}
        self.failed_stages: dict[tuple[int, Stage], int] = {}
        self.started: list[str] = []
        self.cancelled = False
        self.epoch = 1

    def step(self) -> None:
        observed = self._observe()
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
            if isinstance(action, StopStage):
                self._delete(action.name)
            else:
                self._create(action)
        for job in [*self.jobs.values(), *self.ghosts]:
            self._work(job)

    def _create(self, start: StartStage) -> None:
        assert start.epoch == self.epoch
        if start.name in self.jobs:
            return  # AlreadyExists: adopted
        live = [job.start for job in self.jobs.values() if not job.ended]
        assert (start.round, start.stage) not in {(one.round, one.stage) for one in live}
        self.jobs[start.name] = Job(start)
        self.started.append(start.name)

    def _delete(self, name: str) -> None:
        if (job := self.jobs.pop(name, None)) is not None and self.random.random() < 0.5:
            self.ghosts.append(job)  # its node does not hear of it

    def _work(self, job: Job) -> None:
        """Some of its shards end; a summary is created once, whoever comes first."""
        start = job.start
        key = (start.round, start.stage)
        for shard in range(start.shards):
            roll = self.random.random()
            if shard in job.completed or shard in job.failed or roll < 0.3:
                continue
            done = (*key, shard) in self.summaries
            budget_left = self.failed_stages.get(key, 0) < BUDGET.attempts - 1
            if not done and self.random.random() < self.failures and budget_left:
                job.failed[shard] = FailedIndex(reason="Transient", message="again")
            else:
                self.summaries.setdefault((*key, shard), summary_of(start, shard))
                job.completed.add(shard)
        if job.ended and job.failed and not job.gone:
            job.gone = True
            self.failed_stages[key] = self.failed_stages.get(key, 0) + 1

    def _observe(self) -> Observed:
        """What the API server shows: late, and of a deleted Job nothing."""
        seen = {}
        for name, job in self.jobs.items():
            stale = self.random.random() < 0.3
            completed = {n for n in job.completed if not stale or self.random.random() < 0.5}
            seen[name] = StageObserved(
                completed=format_ranges(completed),
                failed={} if stale else dict(job.failed),
                ended=job.ended and not stale,
                sums=None if stale or job.failed or not job.ended else self._sums(job.start),
            )
        return Observed(
            stages=seen,
            cancelled=self.cancelled,
            epoch=self.epoch,
            now_seconds=self.random.random(),
        )

    def _sums(self, start: StartStage) -> object:
        summaries = [
            self.summaries[(start.round, start.stage, shard)] for shard in range(start.shards)
        ]
        return sum_shards(summaries, stage=start.stage, round=start.round)

    def _crashes(self) -> bool:
        """The controller dies, and sometimes what it had started is lost with it."""
        if self.random.random() >= self.crashes:
            return False
        self.epoch += 1
        if self.random.random() < 0.5:
            for name in list(self.jobs):
                self._delete(name)
        return True

    def _check(self, before: RunStatus, after: RunStatus) -> None:
        plan = stages(self.spec)
        assert after.phase is Phase.CANCELLED or (
            ORDER.index(after.phase) >= ORDER.index(before.phase)
        )
        if before.phase.terminal:
            assert after == before
        if before.stage is not None and after.stage is not None:
            place = plan.index((before.round, before.stage))
            assert plan.index((after.round, after.stage)) >= place
        assert len(after.rounds) >= len(before.rounds)
        assert after.policies[: len(before.policies)] == before.policies
        if before.adaptation is not None:
            assert events(after)[: len(events(before))] == events(before)
        old, new = before.current, after.current
        if old and new and (old.round, old.stage) == (new.round, new.stage):
            assert new.attempt >= old.attempt
            assert parse_ranges(new.completed) >= parse_ranges(old.completed)
            assert new.attempt <= BUDGET.attempts


def result(status: RunStatus) -> object:
    """What must not depend on faults and order: all but clocks, names and attempts."""
    rounds = [
        (r.round, r.outcomes, r.engine_seconds, r.inner_loops_run, r.kept) for r in status.rounds
    ]
    told = [event.what for event in events(status)] if status.adaptation else []
    return status.phase, status.policies, rounds, told, status.counters.shards_succeeded


RUNS = st.builds(
    RunSpec,
    rounds=st.integers(0, 3),
    shards=st.integers(1, 4),
    edit=st.just(EditSettings(family="self-qa")),
    improve=st.sampled_from([ImproveSettings(), ImproveSettings(warm_start="gold")]),
)
ADAPTATIONS = st.builds(adaptation_spec, self_made=st.booleans(), shards=st.integers(1, 4))
SPECS: st.SearchStrategy[Spec] = RUNS | ADAPTATIONS


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SPECS, st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.5))
def test_any_order_of_ends_failures_and_crashes_converges_to_the_same_end(
    spec: Spec, seed: int, failures: float, crashes: float
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
def test_the_same_world_gets_the_same_actions_in_the_same_order(spec: Spec, seed: int) -> None:
    runs = [World(spec, seed=seed, failures=0.3, crashes=0.2) for _ in range(2)]
    for world in runs:
        for _ in range(200):
            world.step()
    assert runs[0].started == runs[1].started
    assert runs[0].saved == runs[1].saved


@settings(max_examples=50, deadline=None)
@given(SPECS, st.integers(0, 2**32), st.integers(0, 40))
def test_after_a_permanent_failure_nothing_is_wanted_ever_again(
    spec: Spec, seed: int, when: int
) -> None:
    world = World(spec, seed=seed, failures=0.2, crashes=0.1)
    for _ in range(when):
        world.step()
    current = world.saved.current
    if current is None:
        return
    poison = FailedIndex(permanent=True, reason="NotFound", message="no")
    seen = {name: StageObserved(ended=job.ended) for name, job in world.jobs.items()}
    seen[current.name] = StageObserved(failed={0: poison})
    observed = Observed(stages=seen)
    ended = decide(spec, world.saved, observed, budget=BUDGET)
    live = {name for name, one in seen.items() if not one.ended}
    assert ended.status.phase is Phase.FAILED
    assert {action.name for action in ended.actions} == live
    assert all(isinstance(action, StopStage) for action in ended.actions)
    later = decide(spec, ended.status, Observed(), budget=BUDGET)
    assert later.status == ended.status and later.actions == ()


@settings(max_examples=60, deadline=None)
@given(SPECS, st.integers(0, 2**32), st.integers(0, 40))
def test_cancelled_at_any_moment_everything_stops_and_stays_stopped(
    spec: Spec, seed: int, when: int
) -> None:
    world = World(spec, seed=seed, failures=0.2, crashes=0.1)
    for _ in range(when):
        world.step()
    world.cancelled = True
    for _ in range(200):
        world.step()
        if world.saved.phase.terminal and not world.jobs:
            break
    started = list(world.started)
    assert world.saved.phase in (Phase.CANCELLED, Phase.COMPLETE)
    if world.saved.phase is Phase.COMPLETE:
        assert any(key[:2] == stages(spec)[-1] for key in world.summaries), "it was done already"
    for _ in range(20):
        world.step()
    assert world.started == started
    assert all(job.ended for job in world.jobs.values())
