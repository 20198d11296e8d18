"""The front door of a cluster: replicas side by side over one API server and one store."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cluster_door import (
    Replica,
    begun,
    collected,
    prepared,
    published,
    replica,
    status_of,
    tell,
)
from cluster_objects import adaptation as adaptation_object
from eventually import until
from front_door_harness import TEXT, kinds, pieces, request
from grpc.aio import EOF
from memory_api import MemoryApi

from controller_svc.k8s.api import ADAPTATIONS
from controller_svc.k8s.front.adaptation_objects import read_object
from controller_svc.k8s.front.deletions import Tombstone
from controller_svc.k8s.front.documents import STALE_SECONDS
from controller_svc.k8s.front.front_door import read_cluster_settings
from controller_svc.k8s.front.informer import Informer
from controller_svc.k8s.hops import hop_of_object
from controller_svc.k8s.objects import ObjectPublication
from seal.artifacts import ArtifactStore
from seal.client import Serving, convert
from seal.config import adaptation_of_object
from seal.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)
from seal.rpc.client import rpc_errors
from seal.rpc.hops import Hop, within
from seal.settings.cluster import AdaptationClusterSettings
from seal.v1 import adaptation_pb2

State = adaptation_pb2.AdaptationState
Site = tuple[MemoryApi, ArtifactStore]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object goes within a moment, and a deletion sees it then."""
    monkeypatch.setattr("controller_svc.k8s.front.deletions.LOOK_SECONDS", 0.02)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return MemoryApi(), ArtifactStore(str(tmp_path))


def bodies(api: MemoryApi) -> list[Any]:
    return [found for (kind, _, _), found in api.objects.items() if kind == ADAPTATIONS]


def away(asked: str, done: bool) -> None:
    """A fault of the API server."""
    raise Transient("away")


async def get(door: Replica, name: str, namespace: str = "") -> adaptation_pb2.Adaptation:
    with rpc_errors():
        answer = await door.stub.GetAdaptation(
            adaptation_pb2.GetAdaptationRequest(name=name, namespace=namespace)
        )
    return answer.adaptation


async def submit(door: Replica, *args: Any, **kwargs: Any) -> adaptation_pb2.Adaptation:
    with rpc_errors():
        return (await door.stub.SubmitAdaptation(request(*args, **kwargs))).adaptation


async def delete(door: Replica, name: str, **fields: Any) -> None:
    with rpc_errors():
        await door.stub.DeleteAdaptation(
            adaptation_pb2.DeleteAdaptationRequest(name=name, **fields)
        )


async def listed(door: Replica, **fields: Any) -> adaptation_pb2.ListAdaptationsResponse:
    with rpc_errors():
        return await door.stub.ListAdaptations(adaptation_pb2.ListAdaptationsRequest(**fields))


async def test_200_concurrent_submits_with_20_ids_to_two_replicas_make_20_objects(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as one, replica(api, store) as other:
        answers = await asyncio.gather(
            *(
                (one, other)[n % 2].stub.SubmitAdaptation(request(f"id-{n // 2 % 20}"))
                for n in range(200)
            )
        )
        assert len(bodies(api)) == 20
        assert sum(answer.created for answer in answers) == 20
        counts = Counter(answer.adaptation.uid for answer in answers)
        assert len(counts) == 20 and set(counts.values()) == {10}
        for door in (one, other):
            page = await listed(door)
            assert {one.uid for one in page.adaptations} == set(counts)


async def test_an_object_holds_the_whole_spec_and_nothing_of_what_is_the_clusters(
    site: Site,
) -> None:
    api, store = site
    hop = Hop("mine-1", f"00-{'ab' * 16}-{'cd' * 8}-01", "a=1")
    async with replica(api, store) as door:
        options = adaptation_pb2.AdaptationOptions(seed=7, candidates=3)
        with within(hop):
            made = await submit(door, name="veldra", options=options)
        (body,) = bodies(api)
        manifest, cluster = adaptation_of_object(body)
        assert cluster == AdaptationClusterSettings()
        reachable = {field.alias for field in AdaptationClusterSettings.model_fields.values()}
        assert not reachable & body["spec"].keys()
        assert body["spec"]["edit"]["generator"] is None
        assert (manifest.spec.seed, manifest.spec.edit.k) == (7, 3)
        assert body["spec"] == manifest.spec.model_dump(mode="json", by_alias=True)
        assert hop_of_object(body) == hop
        assert made.state == State.ADAPTATION_STATE_PENDING
        assert (made.uid, made.counts.documents) == (body["metadata"]["uid"], 1)
        assert TEXT not in str(body)


async def test_an_object_has_beside_its_spec_what_the_front_door_is_set_to(
    site: Site, tmp_path: Path
) -> None:
    api, store = site
    file = tmp_path / "adaptations.yaml"
    file.write_text(
        "queueName: gpus\n"
        "publish: {kserve: {name: qwen, modelUri: 'hf://o/m', storeUri: 'pvc://artifacts'}}\n"
    )
    settings = read_cluster_settings(str(file))
    async with replica(api, store, cluster=settings) as door:
        await submit(door, name="veldra")
        (body,) = bodies(api)
        assert adaptation_of_object(body)[1] == settings
        assert settings.publish is not None and settings.publish.kserve.name == "qwen"
        assert body["spec"]["queueName"] == "gpus"
        assert "suspend" not in body["spec"]


async def test_what_a_request_leaves_out_is_of_the_profile_of_the_front_door(site: Site) -> None:
    api, store = site
    async with replica(api, store, profile="published") as door:
        await submit(door, name="veldra")
        (body,) = bodies(api)
        spec = adaptation_of_object(body)[0].spec
        assert (spec.profile, spec.edit.family) == ("published", "implications")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("queue: gpus", "queue"),
        ("publish: {kserve: {name: qwen}}", "publish.kserve.modelUri"),
        ("edit: {k: 3}", "edit"),
    ],
)
def test_a_file_for_the_front_door_that_is_none_is_refused_by_field(
    text: str, field: str, tmp_path: Path
) -> None:
    file = tmp_path / "adaptations.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=f"adaptations.yaml: {field}"):
        read_cluster_settings(str(file))
    with pytest.raises(NotFound):
        read_cluster_settings(str(tmp_path / "missing.yaml"))
    assert read_cluster_settings("") == AdaptationClusterSettings()


async def test_a_kill_between_the_note_of_a_request_and_its_object_still_makes_one(
    site: Site,
) -> None:
    api, store = site
    for done in (False, True):
        name = f"veldra-{done}".lower()

        def die(asked: str, after: bool, done: bool = done) -> None:
            if asked == "create adaptations" and after is done:
                raise Transient("killed here")

        api.fault = die
        async with replica(api, store) as door:
            with pytest.raises(Transient):
                await submit(door, name, name=name)
        api.fault = lambda asked, after: None
        async with replica(api, store) as one, replica(api, store) as other:
            with pytest.raises(Conflict):
                await submit(one, name, name="another")
            answers = await asyncio.gather(
                *(
                    door.stub.SubmitAdaptation(request(name, name=name))
                    for door in (one, other)
                    for _ in range(5)
                )
            )
            assert sum(answer.created for answer in answers) == (0 if done else 1)
    assert len(bodies(api)) == 2


async def test_a_submit_that_is_killed_at_any_request_to_the_api_server_is_made_by_the_next_try(
    tmp_path: Path,
) -> None:
    for number in range(8):
        api, store = MemoryApi(), ArtifactStore(str(tmp_path / str(number)))
        asked = 0

        def die(_: str, __: bool, number: int = number) -> None:
            nonlocal asked
            asked += 1
            if asked == number + 1:
                raise Transient("killed here")

        api.fault = die
        async with replica(api, store) as door:
            try:
                await submit(door, name="veldra")
            except Transient:
                await submit(door, name="veldra")
        assert len(bodies(api)) == 1


async def test_the_same_id_with_another_body_is_refused_and_another_namespace_has_its_own(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as one, replica(api, store, watching=False) as other:
        first = await submit(one)
        assert (await submit(other, namespace="default")).uid == first.uid
        with pytest.raises(Conflict) as refused:
            await submit(other, options=adaptation_pb2.AdaptationOptions(seed=7))
        assert refused.value.field == "request_id"
        assert (await submit(one, namespace="team")).uid != first.uid


async def test_a_namespace_that_is_not_served_is_refused_by_name(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        for call in (
            submit(door, namespace="kube-system"),
            get(door, "veldra", namespace="kube-system"),
            listed(door, namespace="kube-system"),
            delete(door, "veldra", namespace="kube-system"),
        ):
            with pytest.raises(NotFound, match="give one of: default, team") as refused:
                await call
            assert refused.value.field == "namespace"
    assert not api.requests


async def test_what_one_replica_wrote_is_seen_on_another_that_has_not_heard_of_it(
    site: Site,
) -> None:
    api, store = site
    async with (
        collected(api),
        replica(api, store) as one,
        replica(api, store, watching=False) as deaf,
    ):
        made = await submit(one, name="veldra")
        assert (await get(deaf, "veldra")).uid == made.uid
        await delete(one, "veldra")
        again = await submit(deaf, "two", name="veldra")
        assert (await get(deaf, "veldra")).uid == again.uid != made.uid
        await submit(deaf, "three", name="calverow")
        assert [one.name for one in (await listed(deaf)).adaptations] == ["calverow", "veldra"]


async def test_a_name_is_taken_until_its_adaptation_is_deleted_and_its_request_stays_dead(
    site: Site,
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        first = await submit(door, "one", name="veldra")
        with pytest.raises(Conflict) as refused:
            await submit(door, "two", name="veldra")
        assert refused.value.field == "name"
        await delete(door, "veldra")
        second = await submit(door, "two", name="veldra")
        assert second.uid != first.uid
        with pytest.raises(Conflict, match="was deleted") as late:
            await submit(door, "one", name="veldra")
        assert late.value.field == "request_id"


async def test_a_deletion_waits_for_the_trainers_and_erases_what_they_still_wrote(
    site: Site,
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        await submit(door, name="veldra")
        (body,) = bodies(api)
        run = status_of(body).run
        claim = f"{run}/claims/t1-1.json"
        store.write_bytes(claim, b"{}")
        deleting = asyncio.create_task(delete(door, "veldra"))
        await until(lambda: not bodies(api) and store.exists(f"{run}/cancelled"), seconds=20)
        store.write_bytes(f"{run}/trainings/t1.json", b"{}")
        done, _ = await asyncio.wait({deleting}, timeout=0.2)
        assert not done
        store.remove(claim)
        await deleting
        assert not store.list(run)


async def test_a_request_whose_object_was_deleted_by_hand_or_by_its_ttl_stays_dead(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as one:
        made = await submit(one, name="veldra")
        await api.delete(ADAPTATIONS, "default", "veldra", uid=made.uid)
        with pytest.raises(Conflict, match="was deleted"):
            await submit(one, name="veldra")
        api.gone(ADAPTATIONS, "veldra", "default")
    async with replica(api, store) as other:
        with pytest.raises(Conflict, match="was deleted"):
            await submit(other, name="veldra")
    assert not bodies(api)


async def test_a_second_object_that_a_slow_replica_makes_of_a_deleted_request_is_taken_back(
    site: Site,
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as one, replica(api, store) as other:
        looked, go = asyncio.Event(), asyncio.Event()
        create = api.create

        async def slow(*args: Any) -> Any:
            looked.set()
            await go.wait()
            return await create(*args)

        one.adaptations._making._api = _With(api, create=slow)  # type: ignore[assignment]
        late = asyncio.create_task(submit(one, name="veldra"))
        await looked.wait()
        await submit(other, name="veldra")
        await delete(other, "veldra")
        go.set()
        with pytest.raises(Conflict, match="was deleted"):
            await late
        await until(lambda: not bodies(api))


class _With:
    """An API server one of whose requests is another's."""

    def __init__(self, api: MemoryApi, **replaced: object) -> None:
        self._api, self._replaced = api, replaced

    def __getattr__(self, name: str) -> object:
        return self._replaced.get(name) or getattr(self._api, name)


async def test_a_watch_tells_every_event_and_goes_on_from_any_of_them_on_another_replica(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as one, replica(api, store) as other:
        await submit(one, name="veldra")
        call = one.stub.WatchAdaptation(adaptation_pb2.WatchAdaptationRequest(name="veldra"))
        messages = [await call.read()]
        (body,) = bodies(api)
        fresh = status_of(body)
        for status, percent in ((begun(fresh), 1), (prepared(fresh), 40)):
            tell(api, "veldra", status, percent=percent)
            messages.append(await call.read())
        tell(api, "veldra", published(fresh, store))
        while (message := await call.read()) is not EOF:
            messages.append(message)
        told = ["accepted", "prepared", "rewarded", "trained", "judged", "ended"]
        assert kinds(messages) == told
        shown = [one.event.progress for one in messages if one.event.HasField("progress")]
        assert [(one.stage, one.percent) for one in shown][:1] == [("prepare", 1.0)]
        events = [one.event for one in messages if not one.event.HasField("progress")]
        for after in range(len(told)):
            watch = adaptation_pb2.WatchAdaptationRequest(name="veldra", after_sequence=after)
            again = [message.event async for message in other.stub.WatchAdaptation(watch)]
            assert again == events[after:]
        ended = await get(other, "veldra")
        assert ended.state == State.ADAPTATION_STATE_PUBLISHED
        assert (ended.progress.percent, ended.adapter.sha256 != "") == (100, True)


async def test_a_watch_goes_on_at_a_replica_that_has_heard_of_less_than_another_told(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store, watching=False) as late:
        await submit(late, name="veldra")
        tell(api, "veldra", published(status_of(bodies(api)[0]), store))
        watch = adaptation_pb2.WatchAdaptationRequest(name="veldra", after_sequence=3)
        with rpc_errors():
            told = [message async for message in late.stub.WatchAdaptation(watch)]
        assert [one.event.sequence for one in told] == [4, 5, 6]
        assert kinds(told) == ["trained", "judged", "ended"]
        watch.after_sequence = 7
        with pytest.raises(InvalidInput) as refused, rpc_errors():
            await late.stub.WatchAdaptation(watch).read()
        assert refused.value.field == "after_sequence"


async def test_a_late_replica_that_cannot_look_asks_to_be_called_again(site: Site) -> None:
    api, store = site
    async with replica(api, store, watching=False) as late:
        await submit(late, name="veldra")
        tell(api, "veldra", prepared(status_of(bodies(api)[0])))
        api.fault = away
        watch = adaptation_pb2.WatchAdaptationRequest(name="veldra", after_sequence=2)
        with pytest.raises(Transient), rpc_errors():
            await late.stub.WatchAdaptation(watch).read()


@pytest.mark.parametrize("ready", [None, False, True])
async def test_who_serves_an_adapter_is_told_once_the_controller_knows(
    site: Site, ready: bool | None
) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, name="veldra")
        status = published(status_of(bodies(api)[0]), store)
        tell(api, "veldra", status)
        await _until_told(door, lambda seen: seen.adapter.sha256 != "")
        assert not (await get(door, "veldra")).HasField("serving")
        told = ObjectPublication(
            kind="InferenceService",
            name="qwen",
            adapter_name="veldra",
            adapter_uri="s3://artifacts/adapters/1",
            ready=ready,
            reason="RollingOut",
            message="KServe is at it",
            last_transition_time=datetime.fromtimestamp(1000.5, tz=UTC),
        )
        tell(api, "veldra", status, publication=told)
        seen = await _until_told(door, lambda seen: seen.HasField("serving"))
    assert seen.serving.HasField("ready") == (ready is not None)
    assert convert.adaptation(seen).serving == Serving(
        kind="InferenceService",
        service="qwen",
        adapter_name="veldra",
        adapter_uri="s3://artifacts/adapters/1",
        ready=ready,
        reason="RollingOut",
        message="KServe is at it",
        changed_seconds=1000.5,
    )


async def _until_told(
    door: Replica, true: Callable[[adaptation_pb2.Adaptation], bool]
) -> adaptation_pb2.Adaptation:
    deadline = time.monotonic() + 15
    while not true(seen := await get(door, "veldra")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return seen


async def test_two_thousand_watchers_cost_the_api_server_one_watch(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, name="veldra")
        asked = len(api.requests)

        async def follow() -> list[int]:
            seen = []
            async for view in door.adaptations.watch("default", "veldra"):
                seen.append(len(view.events))
                begun_watches.append(1)
            return seen

        begun_watches: list[int] = []
        watchers = [asyncio.create_task(follow()) for _ in range(2000)]
        await until(lambda: len(begun_watches) == 2000)
        fresh = status_of(bodies(api)[0])
        tell(api, "veldra", prepared(fresh))
        await until(lambda: len(begun_watches) == 4000)
        tell(api, "veldra", published(fresh, store))
        assert await asyncio.gather(*watchers) == [[1, 2, 6]] * 2000
        assert len(api.requests) == asked and len(api.watches) == 1


async def test_watches_end_by_a_deletion_and_by_the_end_of_their_replica(site: Site) -> None:
    api, store = site

    async def watched(door: Replica, name: str, **fields: int) -> None:
        watch = adaptation_pb2.WatchAdaptationRequest(name=name, **fields)  # type: ignore[arg-type]
        call = door.stub.WatchAdaptation(watch)
        with rpc_errors():
            async for _ in call:
                pass

    async with replica(api, store) as other:
        async with collected(api), replica(api, store) as one:
            for name in ("veldra", "calverow"):
                await submit(one, name, name=name)
            deleted = [asyncio.create_task(watched(door, "veldra")) for door in (one, other)]
            stopped = asyncio.create_task(watched(one, "calverow"))
            await asyncio.sleep(0.1)
            await delete(other, "veldra")
            for task in deleted:
                with pytest.raises(NotFound):
                    await task
        with pytest.raises(Transient):
            await stopped
        assert (await get(other, "calverow")).name == "calverow"
        with pytest.raises(NotFound):
            await watched(other, "veldra")
        with pytest.raises(InvalidInput):
            await watched(other, "calverow", after_sequence=9)


async def test_a_cancel_is_a_wish_in_the_object_and_one_that_has_ended_stays_as_it_is(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, name="veldra")
        cancel = adaptation_pb2.CancelAdaptationRequest(name="veldra")
        await door.stub.CancelAdaptation(cancel)
        assert bodies(api)[0]["spec"]["cancelled"] is True
        version = bodies(api)[0]["metadata"]["resourceVersion"]
        await door.stub.CancelAdaptation(cancel)
        assert bodies(api)[0]["metadata"]["resourceVersion"] == version
        await submit(door, "two", name="done")
        tell(
            api, "done", published(status_of(api.objects[(ADAPTATIONS, "default", "done")]), store)
        )
        answer = await door.stub.CancelAdaptation(
            adaptation_pb2.CancelAdaptationRequest(name="done")
        )
        assert answer.adaptation.state == State.ADAPTATION_STATE_PUBLISHED
        assert "cancelled" not in api.objects[(ADAPTATIONS, "default", "done")]["spec"]
        with pytest.raises(NotFound), rpc_errors():
            await door.stub.CancelAdaptation(adaptation_pb2.CancelAdaptationRequest(name="none"))


async def test_a_cancel_meets_a_controller_that_writes_at_the_same_time(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, name="veldra")
        writes = 3

        def write(asked: str, done: bool) -> None:
            nonlocal writes
            if asked == "replace adaptations" and not done and writes:
                writes -= 1
                tell(api, "veldra", begun(status_of(bodies(api)[0])), percent=writes)

        api.fault = write
        await door.stub.CancelAdaptation(adaptation_pb2.CancelAdaptationRequest(name="veldra"))
        body = bodies(api)[0]
        assert body["spec"]["cancelled"] is True and body["status"]["phase"] == "Running"


async def test_a_delete_leaves_nothing_but_the_notes_of_its_request(site: Site) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        await submit(door, name="veldra")
        tell(api, "veldra", published(status_of(bodies(api)[0]), store))
        await delete(door, "veldra")
        with pytest.raises(NotFound):
            await delete(door, "veldra")
        with pytest.raises(NotFound):
            await get(door, "veldra")
        left = {path.rpartition("/")[0] for path in store.list()}
        assert left == {"adaptations/requests", "adaptations/made"}


async def test_adapters_are_kept_where_that_is_asked_and_the_wrong_uid_deletes_nothing(
    site: Site,
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        await submit(door, name="veldra")
        tell(api, "veldra", published(status_of(bodies(api)[0]), store))
        one = await get(door, "veldra")
        with pytest.raises(Conflict) as refused:
            await delete(door, "veldra", uid="another")
        assert refused.value.field == "uid"
        await delete(door, "veldra", uid=one.uid, keep_adapters=True)
        for adapter in (one.adapter, one.passages_adapter):
            assert store.exists(f"{adapter.path}/manifest.json")


async def test_nothing_is_erased_before_the_object_has_gone(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, name="veldra")
        tell(api, "veldra", published(status_of(bodies(api)[0]), store))
        before = set(store.list())
        deleting = asyncio.create_task(delete(door, "veldra"))
        await until(lambda: "deletionTimestamp" in bodies(api)[0]["metadata"])
        await asyncio.sleep(0.05)
        assert before <= set(store.list())
        with pytest.raises(NotFound):
            await get(door, "veldra")
        api.gone(ADAPTATIONS, "veldra", "default")
        await deleting
        assert not store.list("adaptations/files")


@pytest.mark.parametrize("where", ["delete", "get", "list"])
async def test_a_deletion_that_was_interrupted_is_ended_by_another_replica(
    site: Site, where: str
) -> None:
    api, store = site
    async with collected(api):
        async with replica(api, store) as door:
            made = await submit(door, name="veldra")
            tell(api, "veldra", published(status_of(bodies(api)[0]), store))
            kept = await get(door, "veldra")

            def away(asked: str, done: bool) -> None:
                if (asked == f"{where} adaptations" and bodies(api) == []) or (
                    asked == "delete adaptations" and where == "delete"
                ):
                    raise Transient("the API server is away")

            api.fault = away
            with pytest.raises(Transient):
                await delete(door, "veldra", uid=made.uid, keep_adapters=True)
        api.fault = lambda asked, done: None
        damaged = "adaptations/deleting/0.json"  # the first that is looked at
        store.write_bytes(damaged, b"{")
        async with replica(api, store) as other:
            await other.adaptations.deletions.sweep()
            await until(lambda: store.list("adaptations/deleting") == (damaged,))
        assert not bodies(api) and not store.list("adaptations/files")
        assert store.exists(f"{kept.adapter.path}/manifest.json")


async def test_a_document_stays_until_the_last_adaptation_of_it_is_deleted(site: Site) -> None:
    api, store = site
    async with collected(api), replica(api, store) as one, replica(api, store) as other:
        for name, door in (("one", one), ("two", other)):
            await submit(door, name, name=name)
        await delete(one, "one")
        assert len(store.list("adaptations/files")) == 1
        await delete(one, "two")
        assert not store.list("adaptations/files")


@pytest.mark.parametrize("path", ["adaptations/files/../x", f"adaptations/files/{'x' * 256}"])
async def test_an_object_that_names_no_path_keeps_no_other_document_from_being_removed(
    site: Site, path: str
) -> None:
    api, store = site
    bad = adaptation_object("bad")
    bad["spec"]["data"]["documents"][0]["path"] = path
    api.put(ADAPTATIONS, bad, "default")
    # A version that took any path has begun to delete another one
    before = Tombstone(namespace="default", name="x", uid="x", run="x", kept=(), files=(path,))
    store.create_json("adaptations/deleting/x.json", before)
    async with collected(api), replica(api, store) as door:
        await submit(door, name="veldra")
        await door.adaptations.deletions.sweep()
        await delete(door, "bad")
        await delete(door, "veldra")
        await until(lambda: not store.list("adaptations/deleting"))
    assert not bodies(api) and not store.list("adaptations/files")


async def test_a_document_is_not_removed_under_a_submit_of_another_replica(site: Site) -> None:
    api, store = site
    async with collected(api), replica(api, store) as one, replica(api, store) as other:
        await submit(one, "one", name="one")
        listing, go = asyncio.Event(), asyncio.Event()
        find = api.pages

        async def slow(*args: Any) -> AsyncIterator[Any]:
            async for page in find(*args):
                listing.set()
                await go.wait()
                yield page

        one.adaptations.documents._api = _With(api, pages=slow)  # type: ignore[assignment]
        deleting = asyncio.create_task(delete(one, "one"))
        await listing.wait()
        late = asyncio.create_task(submit(other, "two", name="two"))
        await until(lambda: len(bodies(api)) == 1)
        (first,) = bodies(api)
        go.set()
        await deleting
        with pytest.raises(Transient, match="document was deleted"):
            await late
        await until(lambda: not bodies(api))  # its work has begun, and fails for want of documents
        made = await submit(other, "two", name="two")
        assert made.uid != first["metadata"]["uid"] and len(bodies(api)) == 1
        assert len(store.list("adaptations/files")) == 1


async def test_an_object_is_not_taken_back_once_another_try_of_its_request_was_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as one, replica(api, store) as other:
        answered: list[adaptation_pb2.Adaptation] = []

        async def gone(paths: object) -> bool:
            answered.append(await submit(other, name="veldra"))
            return False

        monkeypatch.setattr(one.adaptations.documents, "stay", gone)
        with pytest.raises(Transient, match="document was deleted"):
            await submit(one, name="veldra")
        assert (await submit(one, name="veldra")).uid == answered[0].uid
        assert "delete adaptations" not in api.requests


async def test_no_other_try_is_answered_with_an_object_that_is_being_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as one, replica(api, store) as other:

        async def gone(paths: object) -> bool:
            return False

        async def late(*args: Any, **kwargs: Any) -> None:
            with pytest.raises(Transient, match="document was deleted"):
                await submit(other, name="veldra")
            await api.delete(*args, **kwargs)

        monkeypatch.setattr(one.adaptations.documents, "stay", gone)
        one.adaptations._making._api = _With(api, delete=late)  # type: ignore[assignment]
        with pytest.raises(Transient, match="document was deleted"):
            await submit(one, name="veldra")
        await until(lambda: not bodies(api))
        made = await submit(other, name="veldra")
        assert [made.uid] == [body["metadata"]["uid"] for body in bodies(api)]


async def test_an_object_that_an_earlier_try_has_made_is_not_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        stays: list[bool | Exception] = [Transient("the store is away"), False]

        async def stay(paths: object) -> bool:
            found = stays.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        with monkeypatch.context() as patch:
            patch.setattr(door.adaptations.documents, "stay", stay)
            for reason in ("away", "document was deleted"):
                with pytest.raises(Transient, match=reason):
                    await submit(door, name="veldra")
        (body,) = bodies(api)
        assert (await submit(door, name="veldra")).uid == body["metadata"]["uid"]


@pytest.mark.parametrize("error", [NotFound("gone"), Conflict("another's uid"), Transient("away")])
async def test_who_cannot_take_an_object_back_is_asked_to_try_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: SealError
) -> None:
    api, store = site

    def refuse(request: str, done: bool) -> None:
        if request == "delete adaptations":
            raise error

    async def gone(paths: object) -> bool:
        return False

    async with replica(api, store) as door:
        monkeypatch.setattr(door.adaptations.documents, "stay", gone)
        api.fault = refuse
        with pytest.raises(Transient):
            await submit(door, name="veldra")
        assert api.requests.count("delete adaptations") == 1


async def test_the_note_of_a_killed_replica_that_removed_documents_holds_nobody_up_for_long(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, "one", name="one")
        (file,) = store.list("adaptations/files")
        note = "adaptations/erasing/left.json"
        store.create_bytes(note, f'{{"files": ["{file}"]}}'.encode())
        await submit(door, "other", name="other", documents=[
            adaptation_pb2.Document(name="a.txt", content=(TEXT * 2).encode())
        ])  # fmt: skip
        old = time.time() - STALE_SECONDS
        os.utime(Path(store.root_uri.removeprefix("file://")) / note, (old, old))
        await submit(door, "two", name="two")
        assert not store.exists(note)


async def test_uploads_that_no_adaptation_is_given_are_removed_and_no_others(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        await submit(door, "one", name="one")
        used = set(store.list("adaptations/files"))
        with rpc_errors():
            await door.stub.UploadDocument(iter(pieces(b"Nobody asks for this.")))
        assert await door.adaptations.documents.sweep_uploads(60.0) == 0
        assert await door.adaptations.documents.sweep_uploads(0.0) == 1
        assert set(store.list("adaptations/files")) == used


async def test_a_file_whose_name_is_none_keeps_no_upload_from_being_removed(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        with rpc_errors():
            await door.stub.UploadDocument(iter(pieces(b"Nobody asks for this.")))
        folder = Path(store.root_uri.removeprefix("file://")) / "adaptations/files"
        (folder / "\\").touch()
        assert await door.adaptations.documents.sweep_uploads(0.0) == 1
        assert store.list("adaptations/files") == ("adaptations/files/\\",)


async def test_a_namespace_is_never_asked_for_in_one_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site

    async def whole(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("all objects of a namespace in one reply")

    monkeypatch.setattr(api, "list", whole)
    async with collected(api), replica(api, store, watching=False, listed=False) as door:
        names = ["five", "four", "one", "three", "two"]
        for name in names:
            await submit(door, name, name=name)
        await delete(door, "one")
        assert len(store.list("adaptations/files")) == 1  # the others' too
        other = Informer()
        await other.check(api, "default")
        assert sorted(name for _, name in other.entries) == ["five", "four", "three", "two"]
        assert len((await listed(door)).adaptations) == 4
        assert await door.adaptations.documents.sweep_uploads(0.0) == 0


def known_object(name: str, *, documents: int) -> Any:
    """An adaptation as the API server has it."""
    digests = [sha256(f"{name} {number}".encode()).hexdigest() for number in range(documents)]
    named = [
        {"name": f"{one[:8]}.md", "path": f"adaptations/files/{one}", "sha256": one}
        for one in digests
    ]
    body = adaptation_object(name, data={"documents": named})
    body["metadata"] |= {
        "uid": name,
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return body


def test_an_object_takes_half_of_its_json_in_memory_and_is_shown_whole() -> None:
    body, informer = known_object("large", documents=500), Informer()
    entry = informer.put(body)
    assert entry is not None
    assert len(entry.content) * 2 < len(json.dumps(body))
    shown = informer.view(entry).spec.data.documents
    wanted = body["spec"]["data"]["documents"]
    assert [(one.name, one.sha256) for one in shown] == [
        (one["name"], one["sha256"]) for one in wanted
    ]


def test_of_large_specs_few_are_kept_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(body: Any) -> Any:
        read.append(body["metadata"]["name"])
        return read_object(body)

    monkeypatch.setattr("controller_svc.k8s.front.informer.read_object", counted)
    monkeypatch.setattr("controller_svc.k8s.front.informer.MAX_SPEC_DOCUMENTS", 100)
    informer = Informer()
    entries = [informer.put(known_object(name, documents=40)) for name in ("a", "b", "c")]
    for entry in reversed(entries):
        assert entry is not None
        assert len(informer.view(entry).spec.data.documents) == 40
    assert read == ["a", "b", "c", "a"], "the least recently used is read again, others are not"


async def test_pages_are_by_name_and_by_state_on_every_replica(site: Site) -> None:
    api, store = site
    async with replica(api, store) as one, replica(api, store) as other:
        for number in range(7):
            await submit(one, f"id-{number}", name=f"a-{number}")
        await submit(one, "elsewhere", name="a-9", namespace="team")
        await submit(one, "b", name="b-0")
        running = status_of(api.objects[(ADAPTATIONS, "default", "a-3")])
        tell(api, "a-3", begun(running))
        for door in (one, other):
            names, token = [], ""
            while True:
                page = await listed(door, page_size=3, page_token=token, name_prefix="a-")
                names += [one.name for one in page.adaptations]
                token = page.next_page_token
                if not token:
                    break
            assert names == [f"a-{number}" for number in range(7)]
            only = await listed(door, states=[State.ADAPTATION_STATE_RUNNING])
            assert [one.name for one in only.adaptations] == ["a-3"]
            assert [one.name for one in (await listed(door, namespace="team")).adaptations] == [
                "a-9"
            ]


async def test_one_that_was_applied_by_hand_is_seen_cancelled_and_deleted_like_any(
    site: Site,
) -> None:
    api, store = site
    api.put(ADAPTATIONS, adaptation_object("by-hand", suspend=True), "default")
    async with collected(api), replica(api, store) as door:
        assert (await get(door, "by-hand")).counts.documents == 1
        await door.stub.CancelAdaptation(adaptation_pb2.CancelAdaptationRequest(name="by-hand"))
        assert bodies(api)[0]["spec"]["suspend"] is True
        await delete(door, "by-hand")
    assert not bodies(api)


async def test_an_object_that_cannot_be_read_spoils_no_list_and_can_be_deleted(
    site: Site,
) -> None:
    api, store = site
    async with collected(api), replica(api, store) as door:
        await submit(door, name="veldra")
        api.put(ADAPTATIONS, adaptation_object("bad", passages={"maxTokens": 1}), "default")
        assert [one.name for one in (await listed(door)).adaptations] == ["veldra"]
        with pytest.raises(PreconditionFailed, match="maxTokens"):
            await get(door, "bad")
        await delete(door, "bad")
        with pytest.raises(NotFound):
            await get(door, "bad")


async def test_an_object_whose_status_somebody_has_altered_ends_no_watch(site: Site) -> None:
    api, store = site
    altered = adaptation_object("bad")
    condition = {"type": "Progressing", "status": "Unknown", "reason": "ByHand"}
    altered["status"] = {
        "run": "bad", "specSha256": "",
        "conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }  # fmt: skip
    async with replica(api, store) as door:
        api.put(ADAPTATIONS, altered, "default")
        await submit(door, name="veldra")
        assert [one.name for one in (await listed(door)).adaptations] == ["veldra"]
        with pytest.raises(PreconditionFailed, match="status"):
            await get(door, "bad")


async def test_a_missed_deletion_is_found_and_old_news_brings_nothing_back(site: Site) -> None:
    api, store = site
    async with replica(api, store) as door:
        made = await submit(door, name="veldra")
        await submit(door, "two", name="calverow")
        old = api.objects[(ADAPTATIONS, "default", "veldra")].copy()
        watches, api.watches = api.watches, []
        await api.delete(ADAPTATIONS, "default", "veldra", uid=made.uid)
        api.gone(ADAPTATIONS, "veldra", "default")
        assert len((await listed(door)).adaptations) == 2
        await door.informer.check(api, "default")
        api.watches = watches
        assert door.informer.put(old) is None
        assert [one.name for one in (await listed(door)).adaptations] == ["calverow"]
        with pytest.raises(NotFound):
            await get(door, "veldra")


async def test_of_a_namespace_that_is_refused_nobody_is_told_that_it_is_empty(site: Site) -> None:
    api, store = site

    def refuse(request: str, done: bool) -> None:
        if request.startswith("list"):
            raise PreconditionFailed("forbidden", remedy="look at the Role")

    async with replica(api, store, watching=False, listed=False) as door:
        api.put(ADAPTATIONS, adaptation_object("kubectls"), namespace="default")
        api.fault = refuse
        with pytest.raises(PreconditionFailed, match="forbidden"):
            await listed(door)
        api.fault = lambda request, done: None
        assert [one.name for one in (await listed(door)).adaptations] == ["kubectls"]


async def test_a_namespace_that_is_refused_keeps_no_other_from_being_checked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site
    monkeypatch.setattr("controller_svc.k8s.front.informer.CHECK_SECONDS", 0.01)
    refusals: list[str] = []

    def refuse(request: str, done: bool) -> None:
        if request.startswith("list") and not done and len(refusals) < 1:
            refusals.append(request)
            raise PreconditionFailed("forbidden")

    async with replica(api, store, watching=False) as door:
        api.put(ADAPTATIONS, adaptation_object("kubectls"), namespace="default")
        api.fault = refuse
        checking = asyncio.create_task(door.informer.keep_checked(api, ["team", "default"]))
        await until(lambda: api.requests.count("list adaptations") == 2)
        checking.cancel()
        assert [one.name for one in (await listed(door)).adaptations] == ["kubectls"]


async def test_while_the_api_server_is_away_what_is_known_is_told_and_what_is_new_waits(
    site: Site,
) -> None:
    api, store = site
    async with replica(api, store) as door:
        made = await submit(door, name="veldra")
        api.fault = away
        assert (await get(door, "veldra")).uid == made.uid
        assert (await submit(door, name="veldra")).uid == made.uid
        for call in (submit(door, "two"), get(door, "other"), delete(door, "veldra")):
            with pytest.raises(Transient):
                await call


async def test_more_than_an_object_can_hold_is_refused_by_field(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = site
    monkeypatch.setattr("controller_svc.k8s.front.adaptation_objects.MAX_OBJECT_BYTES", 4000)
    async with replica(api, store) as door:
        documents = [
            adaptation_pb2.Document(name=f"{number}.txt", content=TEXT.encode())
            for number in range(20)
        ]
        with pytest.raises(InvalidInput) as refused:
            await submit(door, documents=documents)
        assert refused.value.field == "documents" and not bodies(api)
        await submit(door, "two")
