"""Who is looked at when: each object once, none lost, none by two, none before its time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from eventually import until
from hypothesis import given
from hypothesis import strategies as st

from controller_svc.k8s.queue import Workers, WorkQueue


def test_an_object_that_is_asked_for_twice_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", at_seconds=1.0)
    queue.add("a", at_seconds=0.0)
    assert (queue.take(0.0), queue.take(5.0)) == ("a", None)


def test_who_is_due_longest_comes_first() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for name, due in (("late", 3.0), ("early", 1.0), ("later", 9.0)):
        queue.add(name, at_seconds=due)
    assert [queue.take(5.0) for _ in range(3)] == ["early", "late", None]
    assert queue.due_seconds() == 9.0


def test_an_object_at_work_is_given_to_nobody_else_and_comes_again_for_news() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", at_seconds=0.0)
    assert queue.take(0.0) == "a"
    queue.add("a", at_seconds=0.0)
    assert queue.take(0.0) is None and queue.due_seconds() is None
    queue.done("a")
    assert queue.take(0.0) == "a"


def test_one_that_is_asked_for_all_the_time_takes_no_turn_from_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("busy", at_seconds=0.0)
    queue.add("quiet", at_seconds=0.5)
    assert queue.take(1.0) == "busy"
    queue.add("busy", at_seconds=1.0)
    queue.done("busy")
    assert queue.take(1.0) == "quiet"


def test_one_that_fails_waits_longer_each_time_whatever_news_there_are_and_forgets_it_at_last() -> (
    None
):
    queue: WorkQueue[str] = WorkQueue()
    now, pauses = 0.0, []
    for _ in range(8):
        queue.add("a", at_seconds=now)
        assert queue.take(now) == "a"
        pauses.append(queue.failed("a", now_seconds=now))
        queue.add("a", at_seconds=now)
        assert queue.take(now + pauses[-1] * 0.99) is None
        now += pauses[-1]
    assert pauses[0] <= 0.5 and pauses[0] < pauses[3] < pauses[5] <= 20 and pauses[-1] >= 10
    assert queue.take(now) == "a"
    queue.done("a")
    queue.add("a", at_seconds=now)
    assert queue.take(now) == "a" and queue.failed("a", now_seconds=now) <= 0.5


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", at_seconds=0.0)
    queue.take(0.0)
    assert queue.failed("a", now_seconds=0.0, retry_after_seconds=33.0) == 33.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "done", "fail"]), st.integers(0, 4), st.integers(0, 9)
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_nobody_is_lost_and_nobody_is_at_work_twice(
    steps: list[tuple[str, int, int]],
) -> None:
    queue: WorkQueue[int] = WorkQueue()
    now, asked, at_work = 0.0, set[int](), list[int]()
    for step, key, wait in steps:
        now += 0.1
        if step == "add":
            queue.add(key, at_seconds=now + wait)
            asked.add(key)
        elif step == "take" and (taken := queue.take(now)) is not None:
            assert taken not in at_work
            at_work.append(taken)
            asked.discard(taken)
        elif at_work and step == "done":
            queue.done(at_work.pop())
        elif at_work and step == "fail":
            asked.add(at_work[-1])
            queue.failed(at_work.pop(), now_seconds=now)
    while at_work:
        queue.done(at_work.pop())
    left = set()
    while (taken := queue.take(now + 1000)) is not None:
        left.add(taken)
    assert left == asked


@asynccontextmanager
async def running(workers: Workers[str]):
    task = asyncio.create_task(workers.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_so_many_are_looked_after_at_once_and_a_poisonous_one_stops_nobody() -> None:
    at_once, most, done, failed = 0, 0, list[str](), list[str]()

    async def work(name: str) -> float | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        if name == "poison":
            raise RuntimeError("a defect")
        done.append(name)
        return None

    def on_failure(name: str, error: Exception) -> None:
        failed.append(name)

    workers = Workers(work, on_failure, count=3)
    names = {f"o{number}" for number in range(20)}
    async with running(workers):
        for name in sorted({*names, "poison"}):
            workers.add(name)
        await until(lambda: set(done) == names and failed)
    assert most == 3 and len(done) == 20 and set(failed) == {"poison"}


async def test_it_looks_again_when_it_was_told_to_and_at_once_at_news() -> None:
    looks: list[str] = []

    async def work(name: str) -> float | None:
        looks.append(name)
        return 0.05 if name == "often" else 60.0

    workers = Workers(work, lambda name, error: None, count=2)
    async with running(workers):
        for name in ("often", "seldom"):
            workers.add(name)
        await until(lambda: looks.count("often") == 3)
        assert looks.count("seldom") == 1
        workers.add("seldom")
        await until(lambda: looks.count("seldom") == 2)


async def test_its_end_ends_what_is_at_work() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work(name: str) -> float | None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return None

    workers = Workers(work, lambda name, error: None, count=1)
    async with running(workers):
        workers.add("a")
        await asyncio.wait_for(began.wait(), 10)
    assert ended.is_set()


@pytest.mark.parametrize("asked", [None, 7.0])
async def test_a_failure_is_told_to_who_knows_what_it_asks_for(asked: float | None) -> None:
    errors: list[Exception] = []

    async def work(name: str) -> float | None:
        raise ValueError(name)

    def on_failure(name: str, error: Exception) -> float | None:
        errors.append(error)
        return asked

    workers = Workers(work, on_failure, count=1)
    async with running(workers):
        workers.add("a")
        await until(lambda: errors)
        await asyncio.sleep(0.05)
    assert len(errors) == 1 and len(workers) == 1
