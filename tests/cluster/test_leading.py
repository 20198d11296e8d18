"""Who leads works, who leads no more has stopped, and a turn finds all that there is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from controller_office import Office, small_adaptation, small_run
from eventually import until
from memory_api import MemoryApi

from controller_svc.core import Phase
from controller_svc.k8s.api import JOBS, LEASES
from controller_svc.k8s.health import serve_health
from controller_svc.k8s.leading import WorkHangs, lead_again_and_again
from controller_svc.k8s.lease import Leadership, LeaseTimes
from controller_svc.k8s.turn import Turn
from seal.errors import InvalidInput, Transient
from seal.options import all_addresses

TIMES = LeaseTimes(retry_seconds=0.05, deadline_seconds=1.0, duration_seconds=2)


def candidate(api: MemoryApi, name: str) -> Leadership:
    return Leadership(api, namespace="team", name="seal", identity=name, times=TIMES)


class Lead:
    """Turns that note when they are at work."""

    def __init__(self, stop: Callable[[], Awaitable[None]] | None = None) -> None:
        self.epochs: list[int] = []
        self.at_work = 0
        self._stop = stop

    async def __call__(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.at_work += 1
        try:
            await asyncio.sleep(60)
        finally:
            if self._stop is not None:
                await self._stop()
            self.at_work -= 1


async def stop(task: asyncio.Task[object]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_leader_whose_lease_is_lost_stops_at_once_and_stands_again() -> None:
    api, lead = MemoryApi(), Lead()
    task = asyncio.create_task(lead_again_and_again(candidate(api, "a"), lead))
    await until(lambda: lead.at_work)

    def away(request: str, done: bool) -> None:
        raise Transient("away")

    api.fault = away
    await until(lambda: not lead.at_work)
    api.fault = lambda request, done: None
    await until(lambda: lead.at_work)
    assert lead.epochs[0] <= lead.epochs[1]
    await stop(task)
    assert lead.at_work == 0


async def test_of_two_candidates_one_works_and_the_other_follows_it() -> None:
    api, leads = MemoryApi(), [Lead(), Lead()]
    tasks = [
        asyncio.create_task(lead_again_and_again(candidate(api, name), lead))
        for name, lead in zip("ab", leads, strict=True)
    ]
    await until(lambda: any(lead.at_work for lead in leads))
    await asyncio.sleep(0.3)
    assert sum(lead.at_work for lead in leads) == 1
    first = next(index for index, lead in enumerate(leads) if lead.at_work)
    await stop(tasks[first])
    await until(lambda: leads[1 - first].at_work)
    assert leads[1 - first].epochs[0] == leads[first].epochs[0] + 1
    await stop(tasks[1 - first])


async def test_a_turn_that_fails_ends_the_process() -> None:
    async def fail(epoch: int) -> None:
        raise Transient("the store is away")

    with pytest.raises(Transient, match="the store is away"):
        await lead_again_and_again(candidate(MemoryApi(), "a"), fail)


async def test_work_that_cannot_be_stopped_ends_with_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller_svc.k8s.leading.STOP_SECONDS", 0.1)
    api, hangs = MemoryApi(), asyncio.Event()

    async def hang() -> None:
        await hangs.wait()

    lead = Lead(hang)
    task = asyncio.create_task(lead_again_and_again(candidate(api, "a"), lead))
    await until(lambda: lead.at_work)
    found = api.objects[(LEASES, "team", "seal")]
    api.change(LEASES, "seal", spec=found["spec"] | {"holderIdentity": "b"})
    with pytest.raises(WorkHangs):
        await task
    hangs.set()
    await until(lambda: not lead.at_work)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "store")


async def test_a_turn_takes_up_what_is_there_and_is_brought_on_by_what_happens(
    office: Office,
) -> None:
    before = office.submit(small_run("before"))
    turn = Turn(office.controller, watch=office.api.watch, namespaces=["team"], workers=4)
    task = asyncio.create_task(turn.run())
    await until(turn.ready.is_set)
    later = office.submit(small_adaptation("later"))
    for _ in range(12):
        await until(lambda: settled(office))
        await office.cluster.step()
    await until(lambda: all(office.status(key).phase.terminal for key in (before, later)))
    assert {office.status(key).phase for key in (before, later)} == {Phase.COMPLETE}
    await stop(task)


def settled(office: Office) -> bool:
    """Whether somebody else has to do something now."""
    jobs = office.api.jobs().values()
    live = any(not (job.get("status") or {}).get("conditions") for job in jobs)
    keys = [key for key in office.api.objects if key[0].api_version.startswith("seal.dev")]
    ended = [office.api.objects[key].get("status", {}).get("finishedSeconds") for key in keys]
    return live or all(ended)


async def test_nothing_is_done_in_a_namespace_before_all_of_it_was_seen(office: Office) -> None:
    office.submit(small_run("before"))
    heard: list[Callable[[str], None]] = []

    async def watch(
        *args: Any, ready: asyncio.Event, on_listed: Callable[[str], None]
    ) -> None:  # another namespace is listed, this one is refused
        heard.append(on_listed)
        on_listed("other")
        await office.api.watch(*args, ready=ready)

    turn = Turn(office.controller, watch=watch, namespaces=["team", "other"], workers=1)
    task = asyncio.create_task(turn.run())
    await until(turn.ready.is_set)
    office.submit(small_run("later"))
    await asyncio.sleep(0.1)
    assert not office.api.requests
    heard[0]("team")
    await until(lambda: office.count(JOBS) == 2)
    await stop(task)


async def test_a_turn_whose_watch_fails_ends(office: Office) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Transient("no watch")

    turn = Turn(office.controller, watch=fail, namespaces=["team"], workers=1)
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await turn.run()


async def test_health_is_answered_by_the_loop_and_readiness_says_what_is_missing() -> None:
    missing = "the objects have not all been seen"
    async with serve_health(lambda: missing, port=0, host="127.0.0.1") as port:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/healthz") as reply:
                assert reply.status == 200
            async with session.get("/readyz") as reply:
                assert (reply.status, await reply.text()) == (503, f"{missing}\n")
            missing = ""
            async with session.get("/readyz") as reply:
                assert reply.status == 200
        with pytest.raises(InvalidInput, match="health port"):
            async with serve_health(lambda: "", port=port, host="127.0.0.1"):
                pass


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_a_kubelet_that_knows_ipv6_alone_is_answered_as_any_other() -> None:
    async with (
        serve_health(lambda: "", port=0, host=all_addresses()) as port,
        aiohttp.ClientSession() as session,
    ):
        for host in ("127.0.0.1", "[::1]"):
            async with session.get(f"http://{host}:{port}/readyz") as reply:
                assert reply.status == 200


async def test_a_turn_that_ends_leaves_the_jobs_at_work(office: Office) -> None:
    office.submit(small_run())
    turn = Turn(office.controller, watch=office.api.watch, namespaces=["team"], workers=1)
    task = asyncio.create_task(turn.run())
    await until(lambda: office.count(JOBS) == 1)
    await stop(task)
    assert "delete jobs" not in office.api.requests and not office.api.watches
