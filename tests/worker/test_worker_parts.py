"""The worker's small parts.

Keys, committed files, the clock, the meter, retained windows, scores.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import IO

import pytest
from controller_harness import small_spec, start
from hypothesis import given
from hypothesis import strategies as st

import seal.files
from controller_svc.worker.progress import Meter, TaskProgress
from controller_svc.worker.requests import RetainedSet
from controller_svc.worker.summary import shard_measures, shard_scores
from seal.artifacts import ArtifactStore
from seal.domains.base import Query
from seal.errors import Internal
from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.records import (
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopRecord,
    PartRecord,
    ScoreSum,
    ShardSummary,
    Stage,
)
from seal.runs.clock import CLOCK_INTERVAL_SECONDS, ShardClock
from seal.runs.shards import ShardStore
from seal.runs.store import in_thread, key_of


def evaluation(reward: float | None, *, tokens: int = 1) -> EvaluationRecord:
    outcome = Outcome.UNGRADED if reward is None else Outcome.OK
    return EvaluationRecord(
        outcome=outcome,
        reward=reward,
        answers=(),
        ungraded=0,
        max_logit_difference=1.0,
        tokens=tokens,
        engine_seconds=0.1,
    )


def shard_files(tmp_path: Path) -> ShardStore:
    return ShardStore(
        ArtifactStore(str(tmp_path)), run="demo", round=1, stage=Stage.ROLLOUT, shard=0
    )


async def test_a_committed_file_that_was_altered_is_refused_by_name(tmp_path: Path) -> None:
    files = shard_files(tmp_path)
    await files.commit("baseline", "hill", evaluation(0.5))
    (tmp_path / files.path / "baseline" / "hill.json").write_text("{}")
    with pytest.raises(Internal, match=r"baseline/hill\.json"):
        await files.baselines()


async def test_what_is_committed_first_counts(tmp_path: Path) -> None:
    files = shard_files(tmp_path)
    first = await files.commit("baseline", "hill", evaluation(0.5))
    second = await files.commit("baseline", "hill", evaluation(0.9))
    assert second == first == (await files.baselines())["hill"]


async def test_of_two_writers_of_one_key_one_counts_and_both_see_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_are_writing, real = threading.Barrier(2, timeout=5), seal.files.flush

    def flush(file: IO[bytes]) -> None:
        both_are_writing.wait()
        real(file)

    monkeypatch.setattr(seal.files, "flush", flush)
    seen = await asyncio.gather(
        shard_files(tmp_path).commit("inner", "hill", evaluation(0.1)),
        shard_files(tmp_path).commit("inner", "hill", evaluation(0.9)),
    )
    counted = await shard_files(tmp_path).committed("inner", EvaluationRecord)
    assert seen[0] == seen[1] == counted["hill"]


async def test_a_ghost_of_a_finished_shard_changes_neither_its_records_nor_its_summary(
    tmp_path: Path,
) -> None:
    files, ghost = shard_files(tmp_path), shard_files(tmp_path)
    records, sha256 = await files.commit_records([record_of("hill", evaluation(0.1))])
    summary = await files.commit_summary(summary_of(sha256))
    ghosts, ghosts_sha256 = await ghost.commit_records([record_of("hill", evaluation(0.9))])
    assert (ghosts, ghosts_sha256) == (records, sha256)
    assert await ghost.commit_summary(summary_of("0" * 64)) == summary == await files.summary()
    assert await files.read_records() == (records, summary.result_sha256)
    assert await files.commit_retained("policy", evaluation(0.1)) == evaluation(0.1)
    assert await ghost.commit_retained("policy", evaluation(0.9)) == evaluation(0.1)


def record_of(context_id: str, baseline: EvaluationRecord) -> ContextRecord:
    return ContextRecord(
        context_id=context_id,
        title="Hill",
        parts=(),
        baseline=baseline,
        edits=(),
        inner_loops=(),
        engine_seconds_generate=0.0,
    )


def summary_of(records_sha256: str) -> ShardSummary:
    return ShardSummary(
        name="demo-r1-rollout-s0-a0",
        stage="rollout",
        round=1,
        shard=0,
        attempt=0,
        seconds=1.0,
        inner_loops_run=0,
        inner_loops_resumed=0,
        outcomes={},
        tokens={},
        engine_seconds={},
        result_sha256=records_sha256,
    )


@pytest.mark.parametrize(("times", "everything"), [(1, False), (3, False), (3, True)])
async def test_a_write_is_over_before_its_task_is_however_often_it_is_cancelled(
    times: int, everything: bool
) -> None:
    may_end, begun, written = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def write() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(5)
        written.append(1)

    task = asyncio.create_task(in_thread(write))
    await begun.wait()
    for _ in range(times):
        others = asyncio.all_tasks() - {asyncio.current_task()}  # as a loop that ends cancels all
        for one in others if everything else {task}:
            one.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [1]
    assert task.cancelling() == times


@given(st.text(max_size=300))
def test_a_key_is_a_safe_and_short_part_of_a_path(context_id: str) -> None:
    key = key_of(context_id)
    assert 0 < len(key) <= 96
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert not key.startswith(".")


def test_two_context_ids_have_two_keys_and_a_plain_one_is_its_own() -> None:
    assert key_of("hill-1a2b3c4d") == "hill-1a2b3c4d"
    assert key_of("a/b") != key_of("a_b")
    assert key_of("x" * 200) != key_of("x" * 201)


async def test_the_clock_of_a_shard_goes_on_where_a_killed_attempt_left_it(tmp_path: Path) -> None:
    now = 100.0
    store = ArtifactStore(str(tmp_path))
    clock = ShardClock(store, "demo/clock.json", seconds_before=7.0, clock=lambda: now)
    now += CLOCK_INTERVAL_SECONDS / 2
    await clock.tick()
    assert not store.exists("demo/clock.json")
    now += CLOCK_INTERVAL_SECONDS
    await clock.tick()
    assert store.read_bytes("demo/clock.json") == b'{"seconds":10.0}\n'


def meter(tmp_path: Path, told: list[TaskProgress], clock: list[float]) -> Meter:
    task = start(small_spec(tmp_path), Stage.ROLLOUT, round=1)
    return Meter(task, told.append, clock=lambda: clock[0])


def test_the_estimate_leaves_out_what_an_earlier_attempt_did(tmp_path: Path) -> None:
    told: list[TaskProgress] = []
    clock = [0.0]
    counted = meter(tmp_path, told, clock)
    counted.plan(edits=10, trainings=10, queries=10, inner_loops=10)
    counted.found(edits=10, trainings=8, queries=8, inner_loops=8)
    assert told[-1].eta_seconds is None
    clock[0] = 30.0
    counted.training("a", step=5, total_steps=5)
    counted.evaluating("a", queries=1)
    counted.tell(now=True)
    assert told[-1].eta_seconds == pytest.approx(30.0)
    assert (told[-1].edits_done, told[-1].training_fraction, told[-1].inner_loops_done) == (
        10,
        0.9,
        8,
    )


def test_steps_that_a_checkpoint_brought_are_told_but_are_no_work_of_this_attempt(
    tmp_path: Path,
) -> None:
    told: list[TaskProgress] = []
    clock = [0.0]
    counted = meter(tmp_path, told, clock)
    counted.plan(edits=0, trainings=1, queries=0, inner_loops=0)
    counted.training_resumed("a", step=80)
    counted.training("a", step=80, total_steps=100)
    assert (told[-1].training_fraction, told[-1].eta_seconds) == (0.8, None)
    clock[0] = 30.0
    counted.training("a", step=90, total_steps=100)
    assert (told[-1].trained_steps, told[-1].resumed_steps, told[-1].training_fraction) == (
        10,
        80,
        0.9,
    )
    assert told[-1].eta_seconds == pytest.approx(30.0)


def test_running_trainings_count_by_their_steps(tmp_path: Path) -> None:
    told: list[TaskProgress] = []
    counted = meter(tmp_path, told, [0.0])
    counted.plan(edits=0, trainings=2, queries=0, inner_loops=2)
    counted.training("a", step=3, total_steps=4)
    counted.trained("b", steps=2)
    counted.tell(now=True)
    assert told[-1].training_fraction == pytest.approx((0.75 + 1) / 2)
    assert (told[-1].trained_steps, told[-1].trainings_done) == (5, 1)


def test_snapshots_are_not_told_more_often_than_a_bar_can_show(tmp_path: Path) -> None:
    told: list[TaskProgress] = []
    clock = [0.0]
    counted = meter(tmp_path, told, clock)
    for step in range(1000):
        clock[0] += 0.001
        counted.training("a", step=step, total_steps=1000)
    assert 5 <= len(told) <= 11


QUERIES = tuple(
    Query(query_id=str(index), question="?", answers=("!",), context="text") for index in range(5)
)


def test_windows_rotate_over_the_whole_retained_set() -> None:
    windows = [RetainedSet(QUERIES).window(model=model, size=2) for model in range(5)]
    assert [[query.query_id for query in window] for window in windows] == [
        ["0", "1"],
        ["2", "3"],
        ["4", "0"],
        ["1", "2"],
        ["3", "4"],
    ]


@pytest.mark.parametrize(
    ("queries", "size", "length"), [(QUERIES, 9, 5), (QUERIES, 0, 0), ((), 3, 0)]
)
def test_a_window_holds_no_question_twice(
    queries: tuple[Query, ...], size: int, length: int
) -> None:
    window = RetainedSet(queries).window(model=3, size=size)
    assert len(window) == len(set(window)) == length


def edit(candidate: int) -> EditRecord:
    example = ExampleRecord(prompt="", completion="A fact.")
    return EditRecord(
        context_id="c",
        candidate=candidate,
        seed=candidate,
        parts=(PartRecord(text="A fact.", tokens=3, truncated=False),),
        examples=(example,),
    )


def context(rewards: dict[int, list[float | None]], *, baseline: float | None) -> ContextRecord:
    loops = tuple(
        InnerLoopRecord(
            kind="edit",
            context_id="c",
            candidate=candidate,
            repeat=repeat,
            outcome=Outcome.UNGRADED if reward is None else Outcome.OK,
            training=None,
            evaluation=None if reward is None else evaluation(reward),
            retained=None,
        )
        for candidate, repeats in rewards.items()
        for repeat, reward in enumerate(repeats)
    )
    return ContextRecord(
        context_id="c",
        title="C",
        parts=(PartPromptRecord(prompt=""),),
        baseline=evaluation(baseline),
        edits=tuple(edit(candidate) for candidate in rewards),
        inner_loops=loops,
        engine_seconds_generate=0,
    )


def test_scores_are_means_of_contexts_and_leave_out_what_is_missing() -> None:
    records = [
        context({0: [1.0, None], 1: [0.0, 0.5]}, baseline=0.25),
        context({0: [None, None]}, baseline=None),
    ]
    assert shard_scores(records, {}) == {
        "baseline": ScoreSum(n=1, total=0.25, squares=0.0625),
        "edit": ScoreSum(n=1, total=(1.0 + 0.25) / 2, squares=0.625**2),
        "best": ScoreSum(n=1, total=1.0, squares=1.0),
    }
    assert ScoreSum(n=0, total=0.0).mean is None


def test_measures_of_edits_are_sums_and_leave_out_what_is_missing() -> None:
    measures = shard_measures(
        [
            context({0: [1.0, None], 1: [0.0, 0.5]}, baseline=0.25),
            context({0: [None, None]}, baseline=None),
        ]
    )
    assert measures["gain"] == ScoreSum(n=1, total=0.375, squares=0.375**2)
    assert measures["duplicate"].n == measures["edit_tokens"].n == 3
    assert measures["duplicate"].total == 1.0, "the second edit of a context repeats the first"
    assert shard_measures([]) == {}
