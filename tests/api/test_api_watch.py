"""Watching: every event once and in order, from any of them on, for any number of watchers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from front_door_harness import FrontDoor, Work, ended, front_door, kinds, request

from controller_svc.local.objects import Objects
from seal.errors import InvalidInput, NotFound, Transient
from seal.records import GateReason, Stage
from seal.rpc.client import rpc_errors
from seal.v1 import adaptation_pb2

ALL = ["accepted", "prepared", "questioned", "rewarded", "trained", "judged", "ended"]


async def watched(
    door: FrontDoor, name: str, *, after: int = 0
) -> list[adaptation_pb2.WatchAdaptationResponse]:
    call = door.stub.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(name=name, after_sequence=after)
    )
    with rpc_errors():
        return [message async for message in call]


async def test_a_watch_tells_every_event_and_goes_on_from_any_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        live = await watched(door, "veldra")
        assert kinds(live) == ALL
        events = [message.event for message in live if message.event.WhichOneof("event")]
        numbered = [event for event in events if event.WhichOneof("event") != "progress"]
        assert [event.sequence for event in numbered] == list(range(1, 8))
        for after in range(8):
            again = await watched(door, "veldra", after=after)
            assert [message.event for message in again] == numbered[after:]


async def test_progress_comes_between_the_events_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        call = door.stub.WatchAdaptation(adaptation_pb2.WatchAdaptationRequest(name="veldra"))
        shown = []
        async for message in call:
            if message.event.WhichOneof("event") == "progress":
                shown.append(message.event)
                if shown[-1].progress.stage == "rollout":
                    work.go.set()
        at_rollout = next(event for event in shown if event.progress.stage == "rollout")
        assert at_rollout.sequence == 3
        assert 0 < at_rollout.progress.percent < 100
        assert "progress" not in [
            message.event.WhichOneof("event") for message in await watched(door, "veldra")
        ]


async def test_a_watch_goes_on_over_a_restart_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    before: list[adaptation_pb2.WatchAdaptationResponse] = []

    async def watch(door: FrontDoor) -> None:
        call = door.stub.WatchAdaptation(adaptation_pb2.WatchAdaptationRequest(name="veldra"))
        with rpc_errors():
            async for message in call:
                before.append(message)  # noqa: PERF401 - the call ends with an error

    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        watching = asyncio.create_task(watch(door))
        await work.began(Stage.ROLLOUT)
    with pytest.raises(Transient):
        await watching
    last = max(message.event.sequence for message in before)
    assert kinds(before) == ALL[:last]
    work.hold = lambda task: False
    async with front_door(tmp_path, work, monkeypatch) as door:
        after = await watched(door, "veldra", after=last)
        assert kinds(after) == ALL[last:]
        assert (await ended(door, "veldra")).state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED
    # What was done before the restart is found done
    assert len(work.finished) == len(set(work.finished)) == 4


async def test_many_watchers_share_one_look_at_the_adaptation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ADAPT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        begun = [asyncio.Event() for _ in range(300)]
        watchers = [asyncio.create_task(followed(door, "veldra", event)) for event in begun]
        async with asyncio.timeout(20):
            await asyncio.gather(*(event.wait() for event in begun))
            await work.began(Stage.ADAPT)
        looks: list[str] = []
        look = Objects.status
        monkeypatch.setattr(
            Objects, "status", lambda self, one: looks.append(one.uid) or look(self, one)
        )
        work.go.set()
        everything = await asyncio.gather(*watchers)
        assert all(names == ALL for names in everything)
        assert looks == []


async def followed(door: FrontDoor, name: str, begun: asyncio.Event) -> list[str]:
    call = door.stub.WatchAdaptation(adaptation_pb2.WatchAdaptationRequest(name=name))
    messages = []
    async for message in call:
        messages.append(message)
        begun.set()
    return kinds(messages)


async def test_a_refusal_of_the_gate_says_by_which_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(gate=GateReason.FORGETS), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        one = await ended(door, "veldra")
        assert one.state == adaptation_pb2.ADAPTATION_STATE_REFUSED
        assert (one.gate.passed, one.gate.reason) == (False, "Forgets")
        assert one.gate.message == "by 0.4"
        assert one.adapter.sha256


async def test_a_watch_of_what_is_not_there_or_has_no_such_event_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        with pytest.raises(NotFound) as missing:
            await watched(door, "nobody")
        assert missing.value.field == "name"
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        with pytest.raises(InvalidInput) as ahead:
            await watched(door, "veldra", after=8)
        assert ahead.value.field == "after_sequence"


async def test_a_watch_ends_with_not_found_when_its_adaptation_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        watching = asyncio.create_task(watched(door, "veldra"))
        await work.began(Stage.ROLLOUT)
        await door.stub.DeleteAdaptation(adaptation_pb2.DeleteAdaptationRequest(name="veldra"))
        with pytest.raises(NotFound):
            await watching
