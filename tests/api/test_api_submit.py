"""Submitting: once for each request id, whatever happens in between."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from front_door_harness import SETTINGS, TEXT, Work, ended, front_door, request

from controller_svc.local import adaptations
from controller_svc.local.objects import Objects
from seal.errors import Conflict, InvalidInput, Transient
from seal.records import Stage
from seal.rpc.client import rpc_errors
from seal.rpc.hops import Hop, within
from seal.v1 import adaptation_pb2

EVERYTHING = adaptation_pb2.ListAdaptationsRequest()

SECONDS = 60.0
"""A bound for what takes a moment where nothing else is at work."""


async def test_an_adaptation_runs_to_its_end_and_tells_what_it_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        answer = await door.stub.SubmitAdaptation(request(name="veldra"))
        assert answer.created
        one = await ended(door, "veldra")
    assert one.state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED
    assert one.adapter.sha256 and one.passages_adapter.sha256
    assert (one.counts.passages, one.counts.self_made) == (2, True)
    assert one.evaluation.self_made
    assert one.evaluation.differences[0].value.low == pytest.approx(0.1)
    assert not one.evaluation.HasField("retained_change")
    assert [cost.stage for cost in one.costs] == ["prepare", "question", "rollout", "adapt"]
    assert one.costs[0].engine_seconds == pytest.approx(0.75)
    assert one.options.candidates and one.options.lora.rank and one.base.base_model
    assert one.progress.percent == 100
    assert one.HasField("created") and one.HasField("started") and one.HasField("finished")


async def test_all_work_belongs_to_the_call_that_asked_for_it_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Hop("mine-1", f"00-{'ab' * 16}-{'cd' * 8}-01", "a=1")
    other = Hop("mine-2")
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    settings = SETTINGS.model_copy(update={"max_running": 1})  # the other is begun by its end
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        for name, hop in (("veldra", one), ("calverow", other)):
            with within(hop):
                await door.stub.SubmitAdaptation(request(name, name=name))
        await work.began(Stage.ROLLOUT)
    work.hold = lambda task: False
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        await ended(door, "veldra")
        await ended(door, "calverow")
    assert sorted(map(list, work.hops.values()), key=repr) == [[one], [other]]


async def test_200_concurrent_submits_with_20_ids_make_20_adaptations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        answers = await asyncio.gather(
            *(door.stub.SubmitAdaptation(request(f"id-{n % 20}")) for n in range(200))
        )
        page = await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest())
        assert len(page.adaptations) == 20
        assert sum(answer.created for answer in answers) == 20
        assert len({answer.adaptation.uid for answer in answers}) == 20
        assert len(Objects(door.store).all()) == 20


async def test_the_same_id_with_another_body_is_refused_but_another_caller_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        first = await door.stub.SubmitAdaptation(request())
        again = await door.stub.SubmitAdaptation(request(namespace="default"))
        assert (again.adaptation.uid, again.created) == (first.adaptation.uid, False)
        with pytest.raises(Conflict) as refused, rpc_errors():
            await door.stub.SubmitAdaptation(
                request(options=adaptation_pb2.AdaptationOptions(seed=7))
            )
        assert refused.value.field == "request_id"
        other = await door.stub.SubmitAdaptation(request(), metadata=[("x-seal-caller", "another")])
        elsewhere = await door.stub.SubmitAdaptation(request(namespace="elsewhere"))
        uids = {one.adaptation.uid for one in (first, other, elsewhere)}
        assert len(uids) == 3


async def test_a_name_is_taken_until_its_adaptation_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        first = await door.stub.SubmitAdaptation(request("one", name="veldra"))
        with pytest.raises(Conflict) as refused, rpc_errors():
            await door.stub.SubmitAdaptation(request("two", name="veldra"))
        assert refused.value.field == "name"
        await door.stub.DeleteAdaptation(adaptation_pb2.DeleteAdaptationRequest(name="veldra"))
        second = await door.stub.SubmitAdaptation(request("two", name="veldra"))
        assert second.created
        assert second.adaptation.uid != first.adaptation.uid
        with pytest.raises(Conflict, match="was deleted") as late, rpc_errors():
            await door.stub.SubmitAdaptation(request("one", name="veldra"))
        assert late.value.field == "request_id"


async def test_a_kill_between_the_note_of_a_request_and_its_adaptation_still_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Objects, manifest: object, *, uid: str) -> None:
        raise Transient("the process was killed here")

    async with front_door(tmp_path, Work(), monkeypatch) as door:
        with monkeypatch.context() as patched:
            patched.setattr(Objects, "create", die)
            with pytest.raises(Transient), rpc_errors():
                await door.stub.SubmitAdaptation(request(name="veldra"))
        assert len(door.store.list("adaptations/requests")) == 1
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        page = await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest())
        assert not page.adaptations
        with pytest.raises(Conflict), rpc_errors():
            await door.stub.SubmitAdaptation(request(name="another"))
        answers = await asyncio.gather(
            *(door.stub.SubmitAdaptation(request(name="veldra")) for _ in range(10))
        )
        assert sorted(answer.created for answer in answers) == [False] * 9 + [True]
        await ended(door, "veldra")


async def test_a_submit_whose_caller_has_gone_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        noted, gone, note = asyncio.Event(), threading.Event(), adaptations.note_request

        def slow(*args: Any, **kwargs: Any) -> Any:
            record = note(*args, **kwargs)
            loop.call_soon_threadsafe(noted.set)
            assert gone.wait(SECONDS)
            return record

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(adaptations, "note_request", slow)
        call = door.stub.SubmitAdaptation(request(name="veldra"))
        async with asyncio.timeout(SECONDS):
            await noted.wait()
        call.cancel()
        await asyncio.sleep(0.1)  # the server hears of it
        gone.set()
        async with asyncio.timeout(SECONDS):
            while not (await door.stub.ListAdaptations(EVERYTHING)).adaptations:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert door.store.list("adaptations/objects")
        assert (await ended(door, "veldra", seconds=SECONDS)).name == "veldra"


async def test_documents_that_are_too_long_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seal.documents.read.MAX_ALL_CHARACTERS", 3 * len(TEXT))
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        named = [adaptation_pb2.Document(name=f"{n}.txt", content=TEXT.encode()) for n in range(4)]
        with pytest.raises(InvalidInput) as refused, rpc_errors():
            await door.stub.SubmitAdaptation(request(documents=named))
        assert refused.value.field == "documents" and refused.value.remedy
        assert (await door.stub.SubmitAdaptation(request(documents=named[:3]))).created
