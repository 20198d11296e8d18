"""The time that is left falls, and is right to within a factor of two after a fifth of the run."""

from __future__ import annotations

import io
import itertools
import random
from dataclasses import dataclass, replace

import pytest

from controller_svc.cli.estimate import Falling, RunEstimate
from controller_svc.cli.progress import Lines
from controller_svc.cli.stages import StageTracker
from controller_svc.cli.workload import workload
from controller_svc.core import Phase, RunStatus, StageStatus, stages
from controller_svc.worker.prepare import load_data
from controller_svc.worker.progress import TaskProgress
from seal.config import load_run
from seal.records import Stage

TICK_SECONDS = 0.5


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Shown:
    """What was shown at a moment."""

    at: float
    run: float | None
    stage: float | None


def simulate(
    costs: dict[tuple[int, Stage], float],
    truth: dict[tuple[int, Stage], float],
    *,
    bend: float = 1.0,
    noise: float = 0.0,
) -> list[Shown]:
    """A run whose stages take `truth` seconds; within a stage the work goes as time ** bend."""
    clock, dice = Clock(), random.Random(1)
    estimate, seen = RunEstimate(costs, clock=clock), []
    for place, seconds in truth.items():
        estimate.enter(place)
        began = clock.now
        while clock.now - began < seconds:
            clock.now += TICK_SECONDS
            share = min(1.0, ((clock.now - began) / seconds) ** bend)
            estimate.moved(share * (1 - noise * dice.random()))
            seen.append(Shown(clock.now - 1000.0, estimate.run_seconds(), estimate.stage_seconds()))
    return seen


SPEC = load_run(None).spec
WORK = workload(SPEC, load_data(SPEC))
COSTS = {(work.round, work.stage): work.cost for work in WORK}
WRONG = [
    dict.fromkeys(Stage, 1.0),
    {Stage.ROLLOUT: 2.0},
    {Stage.VALIDATE: 0.5, Stage.IMPROVE: 3.0},
    {Stage.VALIDATE: 1.5, Stage.ROLLOUT: 0.8},
]
"""How far the expected costs of the kinds of stages are from what they take."""


def truth_of(factors: dict[Stage, float], total_seconds: float = 900.0) -> dict:
    raw = {place: cost * factors.get(place[1], 1.0) for place, cost in COSTS.items()}
    scale = total_seconds / sum(raw.values())
    return {place: max(TICK_SECONDS, seconds * scale) for place, seconds in raw.items()}


@pytest.mark.parametrize("factors", WRONG)
@pytest.mark.parametrize(("bend", "noise"), [(1.0, 0.0), (1.3, 0.05), (0.8, 0.1)])
def test_the_estimate_of_the_run_never_jumps_up_and_is_right_to_a_factor_of_two(
    factors: dict[Stage, float], bend: float, noise: float
) -> None:
    seen = simulate(COSTS, truth_of(factors), bend=bend, noise=noise)
    end = seen[-1].at
    for before, after in itertools.pairwise(seen):
        if before.run is not None:
            assert after.run is not None, "once told it is always told"
            assert after.run <= before.run + TICK_SECONDS
    late = [moment for moment in seen if 0.2 * end < moment.at < 0.95 * end]
    ratios = [moment.run / (end - moment.at) for moment in late if moment.run is not None]
    assert len(ratios) == len(late)
    assert max(ratios) < 2.0
    assert min(ratios) > 0.5


def test_the_estimate_of_a_stage_falls_to_nothing_at_its_end() -> None:
    seen = simulate({(0, Stage.VALIDATE): 1.0}, {(0, Stage.VALIDATE): 120.0})
    told = [moment.stage for moment in seen if moment.stage is not None]
    assert told[0] > 100
    assert told == sorted(told, reverse=True)
    assert told[-1] < 5


def test_a_second_round_is_estimated_by_the_first() -> None:
    places = [(1, Stage.ROLLOUT), (1, Stage.IMPROVE), (2, Stage.ROLLOUT), (2, Stage.IMPROVE)]
    truth = dict(zip(places, (300.0, 30.0, 300.0, 30.0), strict=True))
    seen = simulate(dict.fromkeys(places, 1.0), truth)
    at_half = next(moment for moment in seen if moment.at >= 370)
    assert at_half.run is not None
    assert 250 < at_half.run < 330


def test_what_was_found_finished_says_nothing_of_the_pace() -> None:
    clock = Clock()
    estimate = RunEstimate({(1, Stage.ROLLOUT): 1.0}, clock=clock)
    estimate.enter((1, Stage.ROLLOUT))
    clock.now += 1
    estimate.moved(0.9, found=0.9)
    assert estimate.stage_seconds() is None
    clock.now += 10
    estimate.moved(0.96)
    assert estimate.stage_seconds() == pytest.approx(11.0 * 0.04 / 0.06)


def test_nothing_is_told_before_enough_of_a_stage_was_seen() -> None:
    clock = Clock()
    estimate = RunEstimate(
        dict.fromkeys([(1, Stage.ROLLOUT), (1, Stage.IMPROVE)], 1.0), clock=clock
    )
    estimate.enter((1, Stage.ROLLOUT))
    for seconds, share in ((500.0, 0.02), (5.0, 0.03)):
        clock.now += seconds
        estimate.moved(share)
        assert (estimate.stage_seconds(), estimate.run_seconds()) == (None, None)
    clock.now += 1.0
    estimate.moved(0.1)
    assert estimate.stage_seconds() is not None
    swift = RunEstimate({(1, Stage.ROLLOUT): 1.0}, clock=clock)
    swift.enter((1, Stage.ROLLOUT))
    clock.now += 2.0
    swift.moved(0.5)
    assert swift.stage_seconds() is None


def test_a_line_without_a_terminal_comes_only_when_something_changed() -> None:
    clock, said = Clock(), io.StringIO()
    tracker = StageTracker(SPEC, WORK, clock=clock)
    tracker.moved(working(Stage.IMPROVE))
    lines = Lines(tracker, clock=clock, stream=said)
    progress = TaskProgress(
        name="t", stage=Stage.IMPROVE, round=1, shard=0, trainings_total=1, training_fraction=0.25
    )
    for _ in range(5):
        clock.now += 40.0
        lines.on_progress(progress)
    assert len(said.getvalue().splitlines()) == 1
    lines.on_progress(replace(progress, training_fraction=0.5))
    lines.on_progress(replace(progress, training_fraction=0.75))
    first, second = said.getvalue().splitlines()
    assert first == "round 1 of 2, improve: 25%, trainings 0/1"
    assert second.startswith("round 1 of 2, improve: 50%, trainings 0/1; about ")
    assert second.endswith("left of this stage"), "one cheap stage says nothing of the run"


def working(stage: Stage, *, shards: int = 1, completed: str = "") -> RunStatus:
    """A run in this stage of its first round."""
    current = StageStatus(name="s", stage=stage, round=1, shards=shards, completed=completed)
    return RunStatus(
        run="r", spec_sha256="", phase=Phase.RUNNING, round=1, stage=stage, current=current
    )


def test_a_shown_time_stands_still_rather_than_jump() -> None:
    clock = Clock()
    falling = Falling(clock)
    assert falling.follow(None) is None
    assert falling.follow(100.0) == 100.0
    clock.now += 1
    assert falling.follow(500.0) == pytest.approx(100.5)
    clock.now += 1
    assert falling.follow(None) == pytest.approx(99.5)
    clock.now += 1000
    assert falling.follow(10.0) == pytest.approx(10.0)


def test_the_tracker_weighs_kinds_of_work_by_what_they_cost() -> None:
    clock = Clock()
    tracker = StageTracker(SPEC, WORK, clock=clock)
    tracker.moved(working(Stage.ROLLOUT))
    progress = TaskProgress(
        name="t", stage=Stage.ROLLOUT, round=1, shard=0, edits_total=48, trainings_total=48,
        queries_total=360,
    )  # fmt: skip
    tracker.got_on(progress)
    assert tracker.stage_fraction == 0.0
    tracker.got_on(replace(progress, edits_done=48))
    edits = tracker.stage_fraction
    tracker.got_on(replace(progress, edits_done=48, training_fraction=1.0, trainings_done=48))
    assert 0 < edits < 0.5 < tracker.stage_fraction < 1
    assert 0 < tracker.run_fraction < 1


def test_a_shard_that_begins_to_tell_takes_nothing_back() -> None:
    tracker = StageTracker(SPEC, WORK, clock=Clock())
    tracker.moved(working(Stage.ROLLOUT, shards=4))
    half = TaskProgress(
        name="t", stage=Stage.ROLLOUT, round=1, shard=0, edits_total=12, edits_done=6
    )
    tracker.got_on(half)
    assert tracker.stage_fraction == pytest.approx(0.5 / 4)
    tracker.got_on(replace(half, shard=1, edits_done=0))
    assert tracker.stage_fraction == pytest.approx(0.5 / 4)
    tracker.moved(working(Stage.ROLLOUT, shards=4, completed="0"))
    assert tracker.stage_fraction == pytest.approx(1 / 4)


def test_shards_that_were_found_done_are_done_and_say_nothing_of_the_pace() -> None:
    clock = Clock()
    tracker = StageTracker(SPEC, WORK, clock=clock)
    tracker.moved(working(Stage.ROLLOUT, shards=4))
    clock.now += 10
    tracker.moved(working(Stage.ROLLOUT, shards=4, completed="0-2"))
    assert tracker.stage_fraction == 0.75
    assert tracker.stage_seconds() is None


def test_every_stage_of_a_run_has_its_work() -> None:
    assert [(work.round, work.stage) for work in WORK] == list(stages(SPEC))
    by_place = {(work.round, work.stage): work for work in WORK}
    rollout, first = by_place[1, Stage.ROLLOUT], by_place[0, Stage.VALIDATE]
    assert (rollout.contexts, rollout.edits, rollout.trainings) == (8, 16, 16)
    assert (first.edits, first.trainings) == (8, 24), "an edit, the passage and the gold pairs"
    assert by_place[1, Stage.IMPROVE].trainings == 1
    assert all(work.train_tokens > 0 for work in WORK if work.trainings)
