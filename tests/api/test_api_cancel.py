"""Cancelling and deleting, at any moment, and what a restart makes of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from eventually import until
from front_door_harness import (
    SETTINGS,
    TEXT,
    FrontDoor,
    Work,
    ended,
    front_door,
    kinds,
    publish,
    request,
)
from structlog.testing import capture_logs

from controller_svc.core import RunStatus
from controller_svc.local import objects
from controller_svc.local.objects import AdaptationObject, Objects
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Exhausted, Internal, NotFound, Transient
from seal.metrics import metrics
from seal.records import AdapterReference, Stage
from seal.rpc.client import rpc_errors
from seal.v1 import adaptation_pb2

CANCELLED = adaptation_pb2.ADAPTATION_STATE_CANCELLED


async def begun(door: FrontDoor, stage: Stage, name: str = "veldra") -> None:
    """An adaptation whose task of this stage is at work."""
    await door.stub.SubmitAdaptation(request(name, name=name))
    await door.work.began(stage)


async def cancel(door: FrontDoor, name: str) -> adaptation_pb2.Adaptation:
    with rpc_errors():
        answer = await door.stub.CancelAdaptation(adaptation_pb2.CancelAdaptationRequest(name=name))
    return answer.adaptation


async def delete(door: FrontDoor, name: str, **fields: object) -> None:
    with rpc_errors():
        await door.stub.DeleteAdaptation(
            adaptation_pb2.DeleteAdaptationRequest(name=name, **fields)  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.QUESTION, Stage.ROLLOUT, Stage.ADAPT])
async def test_a_cancel_in_any_stage_ends_it_and_a_second_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    work = Work(hold=lambda task: task.stage is stage)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, stage)
        await cancel(door, "veldra")
        one = await ended(door, "veldra")
        assert one.state == CANCELLED
        again = await cancel(door, "veldra")
        assert (again.state, again.sequence) == (CANCELLED, one.sequence)
        assert not any(f"-r0-{stage}-" in name for name in work.finished)


async def test_one_that_ends_while_its_cancel_is_noted_stays_as_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ADAPT)
    noted, has_ended, note = threading.Event(), threading.Event(), Objects.cancel

    def slow(self: Objects, uid: str) -> None:
        note(self, uid)
        noted.set()
        assert has_ended.wait(20)

    monkeypatch.setattr(Objects, "cancel", slow)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, Stage.ADAPT)
        cancelling = asyncio.create_task(cancel(door, "veldra"))
        await until(noted.is_set, seconds=20)
        work.go.set()
        await ended(door, "veldra")
        await until(lambda: not door.adaptations._drivers, seconds=20)
        has_ended.set()
        assert (await cancelling).state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED
        again = await cancel(door, "veldra")
        assert again.state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED


async def test_who_serves_ends_when_the_root_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"

    async def work() -> None:
        async with front_door(root, Work(hold=lambda task: True), monkeypatch) as door:
            await begun(door, Stage.PREPARE)
            shutil.rmtree(root)
            await asyncio.Event().wait()

    with pytest.raises(Transient, match="was deleted, or its volume taken away"):
        await asyncio.wait_for(work(), 30)


async def test_one_that_waits_for_its_turn_is_cancelled_without_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: True)
    settings = SETTINGS.model_copy(update={"max_running": 1})
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        await begun(door, Stage.PREPARE, "first")
        second = await door.stub.SubmitAdaptation(request("second", name="second"))
        assert second.adaptation.state == adaptation_pb2.ADAPTATION_STATE_PENDING
        await cancel(door, "second")
        assert (await ended(door, "second")).state == CANCELLED
        assert all("second" not in name for name in work.calls)
        work.go.set()
        await ended(door, "first")


async def test_no_more_than_the_places_are_at_work_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    settings = SETTINGS.model_copy(update={"max_running": 2})
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        names = [f"one-{n}" for n in range(6)]
        for name in names:
            await door.stub.SubmitAdaptation(request(name, name=name))
        for name in names:
            await ended(door, name)
    assert work.at_once == 2


async def test_a_cancel_holds_over_a_restart_before_it_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, Stage.ROLLOUT)
        # As if the process had died between the note of it and the end of the task
        Objects(door.store).cancel(_uid(door, "veldra"))
    async with front_door(tmp_path, work, monkeypatch) as door:
        assert (await ended(door, "veldra")).state == CANCELLED


def _uid(door: FrontDoor, name: str) -> str:
    return Objects(door.store).read(("default", name)).uid


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.ROLLOUT, Stage.ADAPT, None])
async def test_a_delete_at_any_moment_leaves_nothing_but_the_note_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage | None
) -> None:
    work = Work(hold=lambda task: task.stage is stage)
    async with front_door(tmp_path, work, monkeypatch) as door:
        if stage is None:
            await door.stub.SubmitAdaptation(request("veldra", name="veldra"))
            await ended(door, "veldra")
        else:
            await begun(door, stage)
        await delete(door, "veldra")
        with pytest.raises(NotFound):
            await delete(door, "veldra")
        with pytest.raises(NotFound), rpc_errors():
            await door.stub.GetAdaptation(adaptation_pb2.GetAdaptationRequest(name="veldra"))
        left = {path.rpartition("/")[0] for path in door.store.list()}
        assert left <= {"adaptations", "adaptations/requests", "adaptations/deleted"}


async def test_who_looks_while_it_is_deleted_hears_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, erased = threading.Event(), threading.Event()
    status, erase_run = Objects.status, objects.erase_run

    def slow(self: Objects, one: AdaptationObject) -> RunStatus:
        if not reading.is_set():
            reading.set()
            assert erased.wait(20)
        return status(self, one)

    def erase(store: ArtifactStore, run: str, *, kept: tuple[AdapterReference, ...]) -> None:
        erase_run(store, run, kept=kept)
        erased.set()

    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        await until(lambda: not door.adaptations._drivers, seconds=20)
        monkeypatch.setattr(Objects, "status", slow)
        monkeypatch.setattr(objects, "erase_run", erase)
        looking = asyncio.create_task(door.adaptations.get("default", "veldra"))
        await until(reading.is_set, seconds=20)
        await delete(door, "veldra")
        with pytest.raises(NotFound) as gone:
            await looking
        assert gone.value.field == "name"


async def test_adapters_are_kept_where_that_is_asked_and_the_wrong_uid_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        one = await ended(door, "veldra")
        with pytest.raises(Conflict) as refused:
            await delete(door, "veldra", uid="another")
        assert refused.value.field == "uid"
        await delete(door, "veldra", uid=one.uid, keep_adapters=True)
        for adapter in (one.adapter, one.passages_adapter):
            assert door.store.exists(f"{adapter.path}/manifest.json")


async def test_one_whose_status_is_damaged_is_deleted_unless_adapters_are_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        (status,) = (path for path in door.store.list() if path.endswith("/status.json"))
        door.store.write_bytes(status, b"{")
        with pytest.raises(Internal, match="status"):
            await delete(door, "veldra", keep_adapters=True)
        await delete(door, "veldra")
        assert not door.store.list("adaptations/objects")


async def test_a_deletion_that_was_interrupted_is_ended_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        Objects(door.store).bury(_uid(door, "veldra"), kept=())
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        page = await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest())
        assert not page.adaptations
        assert not door.store.list("adaptations/objects")
        assert not door.store.list("adaptations/files")


async def test_a_document_stays_until_the_last_adaptation_of_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        for name in ("one", "two"):
            await door.stub.SubmitAdaptation(request(name, name=name))
        await delete(door, "one")
        assert len(door.store.list("adaptations/files")) == 1
        await delete(door, "two")
        assert not door.store.list("adaptations/files")


async def test_an_adaptation_that_fails_says_why_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(
        fail=lambda task: (
            Conflict("no luck", remedy="try another")
            if "bad" in task.run and task.stage is Stage.ROLLOUT
            else None
        )
    )
    async with front_door(tmp_path, work, monkeypatch) as door:
        for name in ("bad", "good"):
            await door.stub.SubmitAdaptation(request(name, name=name))
        bad, good = await ended(door, "bad"), await ended(door, "good")
        assert bad.state == adaptation_pb2.ADAPTATION_STATE_FAILED
        failed = next(condition for condition in bad.conditions if condition.type == "Failed")
        assert (failed.status, failed.reason) == ("True", "Conflict")
        assert "no luck" in failed.message
        assert good.state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED
        call = door.stub.WatchAdaptation(adaptation_pb2.WatchAdaptationRequest(name="bad"))
        messages = [message async for message in call]
        assert kinds(messages)[-1] == "ended"
        assert "no luck" in messages[-1].event.ended.message


async def test_one_of_another_base_model_waits_for_a_server_with_that_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        for name in ("first", "second"):
            await begun(door, Stage.ROLLOUT, name)
    calls = list(work.calls)
    work.hold = lambda task: False
    async with front_door(tmp_path, work, monkeypatch, model="another") as door:
        await door.stub.SubmitAdaptation(request("third", name="third"))
        await ended(door, "third")
        get = adaptation_pb2.GetAdaptationRequest(name="first")
        waits = (await door.stub.GetAdaptation(get)).adaptation
        assert waits.state == adaptation_pb2.ADAPTATION_STATE_RUNNING
        await cancel(door, "second")
        assert (await ended(door, "second")).state == CANCELLED
        assert not any("first" in name or "second" in name for name in work.calls[len(calls) :])
    async with front_door(tmp_path, work, monkeypatch) as door:
        assert (await ended(door, "first")).state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED


async def test_more_that_wait_than_the_line_is_long_are_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: True)
    settings = SETTINGS.model_copy(update={"max_running": 1, "max_waiting": 1})
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        for name in ("one", "two"):
            await door.stub.SubmitAdaptation(request(name, name=name))
        with pytest.raises(Exhausted) as full, rpc_errors():
            await door.stub.SubmitAdaptation(request("three", name="three"))
        assert full.value.retry_after_seconds
        await delete(door, "two")
        await door.stub.SubmitAdaptation(request("three", name="three"))
        work.go.set()
        await ended(door, "three")


async def test_where_none_may_wait_a_free_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: True)
    settings = SETTINGS.model_copy(update={"max_running": 1, "max_waiting": 0})
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        await door.stub.SubmitAdaptation(request("one", name="one"))
        with pytest.raises(Exhausted), rpc_errors():
            await door.stub.SubmitAdaptation(request("two", name="two"))
        work.go.set()
        await ended(door, "one")


async def test_the_metrics_count_adaptations_by_state_and_those_that_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0.0

    submitted = value("seal_adaptations_submitted_total")
    published = value("seal_adaptations_ended_total", state="Published")
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, Stage.ROLLOUT)
        assert value("seal_adaptations", state="Running") == 1
        work.go.set()
        await ended(door, "veldra")
        assert value("seal_adaptations", state="Running") == 0
        assert value("seal_adaptations", state="Published") == 1
        await delete(door, "veldra")
        assert value("seal_adaptations", state="Published") == 0
    assert value("seal_adaptations_submitted_total") == submitted + 1
    assert value("seal_adaptations_ended_total", state="Published") == published + 1


async def test_who_only_looks_can_read_and_cancel_without_any_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, Stage.ROLLOUT)
    calls = list(work.calls)
    settings = SETTINGS.model_copy(update={"max_running": 0})
    async with front_door(tmp_path, work, monkeypatch, model="", settings=settings) as door:
        page = await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest())
        running = adaptation_pb2.ADAPTATION_STATE_RUNNING
        assert [one.state for one in page.adaptations] == [running]
        await cancel(door, "veldra")
        assert (await ended(door, "veldra")).state == CANCELLED
    assert work.calls == calls


async def test_what_was_cancelled_has_ended_for_good_once_who_only_looks_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"max_running": 0})
    async with front_door(tmp_path, Work(), monkeypatch, settings=settings) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await cancel(door, "veldra")
    async with front_door(tmp_path, Work(), monkeypatch, settings=settings) as door:
        page = await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest())
        assert [one.state for one in page.adaptations] == [CANCELLED]


async def test_what_a_defect_says_is_told_to_no_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(fail=lambda task: KeyError("the secret passage"))
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        one = await ended(door, "veldra")
    failed = next(condition for condition in one.conditions if condition.type == "Failed")
    assert failed.reason == "Internal" and "KeyError" in failed.message
    assert "secret" not in str(one)
    assert not [path for path in door.store.list() if b"secret" in door.store.read_bytes(path)]


async def test_a_delete_takes_what_a_killed_writer_has_left_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        run = tmp_path / Objects(door.store).read(("default", "veldra")).run
        left = run / ".tmp-1"
        left.write_text(TEXT)
        await delete(door, "veldra")
        assert not left.exists()


async def test_one_that_waits_after_a_restart_says_what_it_is_pinned_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await begun(door, Stage.ROLLOUT)
    monkeypatch.setattr(Objects, "base_sha256", lambda self, run: "b" * 64)
    settings = SETTINGS.model_copy(update={"max_running": 0})
    async with front_door(tmp_path, work, monkeypatch, settings=settings) as door:
        get = adaptation_pb2.GetAdaptationRequest(name="veldra")
        assert (await door.stub.GetAdaptation(get)).adaptation.base.base_sha256 == "b" * 64


async def test_what_could_not_be_swept_up_is_logged_and_the_adaptation_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Transient("the store is away")

    monkeypatch.setattr("controller_svc.local.live.sweep_run", fail)
    with capture_logs() as logs:
        async with front_door(tmp_path, Work(), monkeypatch) as door:
            await door.stub.SubmitAdaptation(request(name="veldra"))
            one = await ended(door, "veldra")
            await until(lambda: not door.adaptations._drivers, seconds=20)
    assert one.state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED
    assert [line for line in logs if line["event"] == "adaptation not swept up"]


async def test_who_died_before_it_had_swept_up_is_made_up_for_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    work = Work()
    with monkeypatch.context() as patched:
        patched.setattr("controller_svc.local.live.sweep_run", die)
        async with front_door(tmp_path, work, monkeypatch) as door:
            await door.stub.SubmitAdaptation(request(name="veldra"))
            one = await ended(door, "veldra")
            await until(lambda: not door.adaptations._drivers, seconds=20)
    (run,) = work.hops
    store = ArtifactStore(str(tmp_path))
    store.write_bytes(f"{run}/trainings/left.json", b"{}")
    left = publish(store, run, "inner")
    async with front_door(tmp_path, work, monkeypatch) as door:
        await until(lambda: not store.list(f"{run}/trainings"), seconds=20)
        await until(lambda: store.exists(f"{run}/swept"), seconds=20)
        get = adaptation_pb2.GetAdaptationRequest(name="veldra")
        assert (await door.stub.GetAdaptation(get)).adaptation == one
    addresses = {path.rpartition("/")[0] for path in store.list(f"{run}/adapters")}
    assert one.adapter.path in addresses and left.path not in addresses


async def test_what_a_killed_writer_left_among_adapters_goes_once_an_adaptation_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(hold=lambda task: task.stage is Stage.ADAPT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await work.began(Stage.ADAPT)
        (run,) = work.hops
        left = tmp_path / run / "adapters/.tmp-1-directory"
        left.mkdir(parents=True)
        (left / "adapter_model.safetensors").write_bytes(b"half")
        work.go.set()
        await ended(door, "veldra")
        await until(lambda: not door.adaptations._drivers, seconds=20)
    assert not left.exists()
