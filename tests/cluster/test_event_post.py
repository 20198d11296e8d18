"""Events are posted beside the looks: in order, a few tries each, and never in a look's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controller_office import Office, small_run
from eventually import until
from memory_api import Killed, MemoryApi
from structlog.testing import capture_logs

from controller_svc.core import Phase
from controller_svc.k8s import event_post
from controller_svc.k8s.api import EVENTS, api_error
from controller_svc.k8s.event_post import MAX_TRIES, PAUSE_SECONDS, EventOutcome, EventPost, posting
from seal.errors import SealError
from seal.metrics import metrics


def event(about: str, number: int) -> Any:
    return {
        "metadata": {"name": f"{about}.{number}", "namespace": "team"},
        "involvedObject": {"uid": about},
        "reason": f"{about}{number}",
    }


def posted(api: MemoryApi) -> list[str]:
    return [found["reason"] for at, found in api.objects.items() if at[0] == EVENTS]


def refusal(status: int, *, retry_after: str = "") -> Callable[[], SealError]:
    """What the API server's reply stands for."""
    return lambda: api_error(status, "", {"Retry-After": retry_after}, "POST events")


def counted(outcome: EventOutcome) -> float:
    return metrics.registry.get_sample_value("seal_events_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue's pauses are over at once."""
    monkeypatch.setattr(
        "controller_svc.k8s.queue.AttemptBudget.delay_seconds", lambda *_, **__: 0.0
    )


async def test_those_of_an_object_are_posted_in_order(api: MemoryApi) -> None:
    before = counted(EventOutcome.POSTED)
    async with posting(api) as post:
        for number in range(5):
            for about in ("a", "b"):
                post.hand_in(event(about, number))
        await until(lambda: not len(post))
    for about in ("a", "b"):
        own = [reason for reason in posted(api) if reason.startswith(about)]
        assert own == [f"{about}{number}" for number in range(5)]
    assert counted(EventOutcome.POSTED) - before == 10


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_one_that_is_refused_is_given_up_at_once_and_holds_up_nothing(
    api: MemoryApi, status: int
) -> None:
    error, before, asked = refusal(status), counted(EventOutcome.REFUSED), []

    def refuse(request: str, done: bool) -> None:
        asked.append(request)
        if len(asked) == 1:
            raise error()

    api.fault = refuse
    async with posting(api) as post:
        for number in range(3):
            post.hand_in(event("a", number))
        await until(lambda: not len(post))
    assert posted(api) == ["a1", "a2"]
    assert counted(EventOutcome.REFUSED) - before == 1


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_a_server_that_is_away_for_a_moment_is_asked_again_and_order_is_kept(
    api: MemoryApi, status: int, at_once: None
) -> None:
    error, asked = refusal(status), []

    def refuse(request: str, done: bool) -> None:
        if not done:
            asked.append(request)
        if len(asked) <= 3:
            raise error()

    api.fault = refuse
    async with posting(api) as post:
        for number in range(3):
            post.hand_in(event("a", number))
        await until(lambda: not len(post))
    assert posted(api) == ["a0", "a1", "a2"]
    assert len(asked) == 6


async def test_a_lost_reply_posts_nothing_twice(api: MemoryApi, at_once: None) -> None:
    lost = []

    def lose(request: str, done: bool) -> None:
        if done and not lost:
            lost.append(request)
            raise refusal(504)()

    api.fault = lose
    async with posting(api) as post:
        post.hand_in(event("a", 0))
        await until(lambda: not len(post))
    assert lost and posted(api) == ["a0"]


async def test_what_waits_or_was_posted_is_not_posted_again_but_what_was_refused_is(
    api: MemoryApi,
) -> None:
    post = EventPost(api)
    for _ in range(2):
        post.hand_in(event("a", 0))
    await post.flush()
    post.hand_in(event("a", 0))
    assert api.requests == ["create events"] and len(post) == 0

    def refuse(request: str, done: bool) -> None:
        raise refusal(403)()

    api.fault = refuse
    post.hand_in(event("a", 1))
    await post.flush()
    api.fault = lambda request, done: None
    post.hand_in(event("a", 1))
    await post.flush()
    assert posted(api) == ["a0", "a1"]


async def test_one_that_fails_again_and_again_is_given_up(api: MemoryApi, at_once: None) -> None:
    asked = []

    def refuse(request: str, done: bool) -> None:
        asked.append(request)
        raise refusal(500)()

    api.fault, before = refuse, counted(EventOutcome.REFUSED)
    async with posting(api) as post:
        post.hand_in(event("a", 0))
        await until(lambda: not len(post))
    assert len(asked) == MAX_TRIES and counted(EventOutcome.REFUSED) - before == 1


async def test_a_defect_ends_one_event_and_not_the_post(api: MemoryApi, at_once: None) -> None:
    asked = []

    def crash(request: str, done: bool) -> None:
        asked.append(request)
        if len(asked) == 1:
            raise ZeroDivisionError

    api.fault, before = crash, counted(EventOutcome.REFUSED)
    async with posting(api) as post:
        post.hand_in(event("a", 0))
        await until(lambda: not len(post))
        for number in (1, 2):
            post.hand_in(event("a", number))
        await until(lambda: not len(post))
    assert posted(api) == ["a1", "a2"] and counted(EventOutcome.REFUSED) - before == 1


async def test_an_object_whose_events_fail_keeps_those_of_no_other(api: MemoryApi) -> None:
    create = api.create

    async def fails_for_a(kind: Any, namespace: str, body: Any) -> Any:
        if body["involvedObject"]["uid"] == "a":
            raise refusal(500, retry_after="60")()
        return await create(kind, namespace, body)

    api.create = fails_for_a  # type: ignore[method-assign]
    async with posting(api) as post:
        for number in range(3):
            for about in ("a", "b"):
                post.hand_in(event(about, number))
        await until(lambda: posted(api) == ["b0", "b1", "b2"])
        assert len(post) == 3


async def test_beyond_the_bound_events_are_dropped_with_one_warning_and_counted(
    api: MemoryApi,
) -> None:
    post, before = EventPost(api, max_waiting=2), counted(EventOutcome.DROPPED)
    with capture_logs() as logs:
        for number in range(5):
            post.hand_in(event("a", number))
    assert [line["log_level"] for line in logs] == ["warning"]
    assert counted(EventOutcome.DROPPED) - before == 3
    await post.flush()
    assert posted(api) == ["a0", "a1"]
    with capture_logs() as logs:
        for number in range(5, 9):
            post.hand_in(event("a", number))
    assert len(logs) == 1, "it was empty between: that is told anew"


def story(about: str, number: int, *, type: str = "Normal", message: str = "") -> Any:
    return event(about, number) | {"type": type, "message": message or f"{about}{number}"}


def messages(api: MemoryApi) -> list[str]:
    return [found["message"] for at, found in api.objects.items() if at[0] == EVENTS]


async def test_steps_of_an_object_that_wait_are_told_by_one_event_that_is_the_newest(
    api: MemoryApi,
) -> None:
    post, before = EventPost(api), counted(EventOutcome.JOINED)
    for number in range(3):
        for about in ("a", "b"):
            post.hand_in(story(about, number), step=True)
    assert len(post) == 2 and counted(EventOutcome.JOINED) - before == 4
    await post.flush()
    assert messages(api) == ["a0; then a1; then a2", "b0; then b1; then b2"]
    assert posted(api) == ["a2", "b2"]
    for number in range(3):
        post.hand_in(story("a", number), step=True)
    assert len(post) == 0, "each was told"


async def test_what_was_sent_is_no_step_or_is_long_stands_for_itself(api: MemoryApi) -> None:
    lost = []

    def lose(request: str, done: bool) -> None:
        if done and not lost:
            lost.append(request)
            raise refusal(504)()

    api.fault, post = lose, EventPost(api)
    post.hand_in(story("a", 0), step=True)
    await post.flush()
    assert posted(api) == ["a0"] and len(post) == 1, "its reply has not come"
    post.hand_in(story("a", 1), step=True)
    post.hand_in(story("a", 2, type="Warning"))
    post.hand_in(story("a", 3), step=True)
    post.hand_in(story("a", 4, message="long " * 250), step=True)
    await post.flush()
    assert posted(api) == ["a0", "a1", "a2", "a3", "a4"]


async def test_posts_have_pauses_between_them_and_warnings_the_next_turn(api: MemoryApi) -> None:
    began_at = time.monotonic()
    async with posting(api) as post:
        for number in range(6):
            post.hand_in(story(f"o{number}", 0))
        post.hand_in(story("late", 0, type="Warning"))
        await until(lambda: not len(post))
    assert time.monotonic() - began_at >= 6 * PAUSE_SECONDS
    assert posted(api)[0] == "late0"


async def test_a_server_that_does_not_answer_keeps_no_look(tmp_path: Path) -> None:
    office = Office(tmp_path / "store")
    create = office.api.create

    async def hangs(kind: Any, namespace: str, body: Any) -> Any:
        if kind == EVENTS:
            await asyncio.Event().wait()
        return await create(kind, namespace, body)

    office.api.create = hangs  # type: ignore[method-assign]
    key = office.submit(small_run())
    working = asyncio.create_task(office.events.run())
    while not office.status(key).phase.terminal:
        await office.controller.reconcile(key)
        await office.cluster.step()
    assert office.status(key).phase is Phase.COMPLETE
    assert len(office.events) in (1, 2) and office.told(key) == []
    working.cancel()


async def test_at_the_end_what_waits_is_tried_once_more(api: MemoryApi) -> None:
    asked = []

    def refuse(request: str, done: bool) -> None:
        asked.append(request)
        if len(asked) == 1:
            raise refusal(503, retry_after="60")()

    api.fault = refuse
    async with posting(api) as post:
        post.hand_in(event("a", 0))
        post.hand_in(event("a", 1))
        await until(lambda: bool(asked))
    assert posted(api) == ["a0", "a1"]


async def test_a_server_that_does_not_answer_delays_the_end_by_a_bound(
    api: MemoryApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(event_post, "FLUSH_SECONDS", 0.2)
    api.create = hangs  # type: ignore[method-assign, assignment]
    before, began_at = counted(EventOutcome.DROPPED), time.monotonic()
    with capture_logs() as logs:
        async with posting(api) as post:
            for number in range(3):
                post.hand_in(event("a", number))
    assert time.monotonic() - began_at < 5
    assert counted(EventOutcome.DROPPED) - before == 3
    assert [line["waiting"] for line in logs] == [3]


async def test_a_controller_that_dies_before_the_post_is_followed_by_one_that_tells_the_newest(
    tmp_path: Path,
) -> None:
    office = Office(tmp_path / "store")
    key = office.submit(small_run())
    for _ in range(3):
        await office.controller.reconcile(key)
        await office.cluster.step()
    assert office.told(key) == [], "nothing was posted"
    office.restart()
    await office.look(key)
    told = [reason for _, reason in office.told(key)]
    # Where it was when the other died, and what became of it now: what came before is not told
    assert told == ["RolloutRunning", "ImproveRunning"]
    await office.to_the_end(key)
    told = [reason for _, reason in office.told(key)]
    assert told == ["RolloutRunning", "ImproveRunning", "ValidateRunning", "AllRoundsDone"]


async def test_one_that_dies_after_the_post_is_followed_by_one_that_repeats_nothing(
    tmp_path: Path,
) -> None:
    office = Office(tmp_path / "store")
    key = office.submit(small_run())
    deaths = 0

    def die(request: str, done: bool) -> None:
        nonlocal deaths
        if request == "create events" and done and deaths < 3:
            deaths += 1
            raise Killed

    office.api.fault = die
    while not office.status(key).phase.terminal:
        try:
            await office.to_the_end(key)
        except Killed:
            office.restart()
    told = [reason for _, reason in office.told(key)]
    assert deaths == 3 and len(told) == 6
