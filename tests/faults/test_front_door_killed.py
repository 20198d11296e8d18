"""The front door of a cluster, killed or failed: one object for a request, and nothing left of it.

Killed: n = every moment, before and after, of every request to the API server, file made and file
removed, of a submit and of a delete: 34, each with a replica that goes on. Failed: n = 5 requests
in 16 ways, each three times: 80.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from api_faults import API_FAULTS, ApiFault
from cluster_door import MODEL, NAMESPACES, collected, published, status_of, tell
from eventually import until
from memory_api import Killed, MemoryApi
from mortal import Life, MortalApi, MortalStore, dies_at

from controller_svc.adaptations import RequestKey, Submission, View
from controller_svc.api.files import path_of
from controller_svc.k8s.api import ADAPTATIONS
from controller_svc.k8s.front.adaptations import ClusterAdaptations
from controller_svc.k8s.front.informer import Informer
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, SealError
from seal.records import AdapterReference

TEXT = b"The tower of Veldra stands on a hill."
SHA256 = hashlib.sha256(TEXT).hexdigest()
KEY = RequestKey(caller="", namespace="default", request_id="one")
DOCUMENT = {"name": "veldra.txt", "path": path_of(SHA256), "sha256": SHA256}
SUBMISSION = Submission(
    key=KEY, body_sha256=SHA256, name="veldra", changes={"data.documents": [DOCUMENT]}
)


class Store(MortalStore):
    """In which a removal is a side effect, too."""

    def remove(self, path: str) -> None:
        what = f"remove {path.split('/', 1)[-1]}"
        self.life.at(f"before {what}")
        super().remove(path)
        self.life.at(f"after {what}")

    def remove_directory(self, reference: AdapterReference) -> None:
        self.life.at("before remove adapter")
        super().remove_directory(reference)
        self.life.at("after remove adapter")


def replica(api: MemoryApi, root: Path, life: Life) -> ClusterAdaptations:
    """One that hears of nothing, so that it asks for all."""
    return ClusterAdaptations(
        MortalApi(api, life),
        Store.of(str(root), life),
        model=MODEL,
        profile="embedded",
        namespaces=NAMESPACES,
        informer=Informer(),
    )


async def submit(adaptations: ClusterAdaptations, root: Path) -> View:
    """As the service does: a document is stored unless the request has its adaptation."""
    if (view := await adaptations.requested(KEY, SHA256)) is not None:
        return view
    ArtifactStore(str(root)).write_bytes(path_of(SHA256), TEXT)
    return (await adaptations.submit(SUBMISSION))[0]


def publish(api: MemoryApi, root: Path) -> None:
    """The controller brings it to its end."""
    body = api.objects[(ADAPTATIONS, "default", "veldra")]
    tell(api, "veldra", published(status_of(body), ArtifactStore(str(root))))


async def whole(adaptations: ClusterAdaptations, api: MemoryApi, root: Path) -> None:
    """From the request to its deletion."""
    await submit(adaptations, root)
    publish(api, root)
    await adaptations.delete("default", "veldra", uid="", keep_adapters=False)


async def go_on(adaptations: ClusterAdaptations, api: MemoryApi, root: Path) -> bool:
    """Another replica, to which the client sends the same again; whether it was deleted already."""
    await adaptations.deletions.sweep()
    await until(lambda: not ArtifactStore(str(root)).list("adaptations/deleting"))
    try:
        view = await submit(adaptations, root)
    except Conflict:
        return True
    assert len(api.objects) == 1
    assert view.uid == api.objects[(ADAPTATIONS, "default", "veldra")]["metadata"]["uid"]
    publish(api, root)
    await adaptations.delete("default", "veldra", uid=view.uid, keep_adapters=False)
    return False


async def test_a_front_door_killed_at_any_side_effect_makes_one_object_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.k8s.front.deletions.LOOK_SECONDS", 0.02)
    calm, api = Life(), MemoryApi()
    async with collected(api):
        await whole(replica(api, tmp_path / "calm", calm), api, tmp_path / "calm")
    assert len(calm.seen) >= 34, calm.seen
    deleted = []
    for number in range(len(calm.seen)):
        root, api = tmp_path / str(number), MemoryApi()
        made: set[str] = set()
        api.watches.append(lambda seen, made=made: made.add(str(seen.body["metadata"]["uid"])))  # type: ignore[misc,index]
        async with collected(api):
            killed = replica(api, root, Life(fault=dies_at(number)))
            with pytest.raises(Killed):
                await whole(killed, api, root)
            with suppress(Killed):
                await killed.deletions.close()
            other = replica(api, root, Life())
            deleted.append(await go_on(other, api, root))
            # One for the request, whoever made it, and none comes back
            assert len(made) == 1, calm.seen[number]
            with pytest.raises(Conflict, match="was deleted"):
                await submit(other, root)
            with pytest.raises(NotFound):
                await other.get("default", "veldra")
            assert not api.objects, calm.seen[number]
            await other.documents.sweep_uploads(0.0)
            left = {
                path.rpartition("/")[0]
                for path in ArtifactStore(str(root)).list()
                if not path.startswith("adaptations/erasing/")  # a killed one's, for two minutes
            }
            assert left == {"adaptations/requests", "adaptations/made"}, calm.seen[number]
    assert deleted == sorted(deleted) and 0 < sum(deleted) < len(deleted)


REQUESTS = ("get", "create", "replace", "delete", "list")


def failing(request: str, fault: ApiFault, times: int) -> Life:
    """A server that fails the first of these requests."""
    left = times

    def strike(_: int, effect: str) -> SealError | None:
        nonlocal left
        if not left or effect != f"{fault.moment} {request} adaptations":
            return None
        left -= 1
        return fault.error(effect)

    return Life(fault=strike)


async def insist(adaptations: ClusterAdaptations, api: MemoryApi, root: Path) -> None:
    """A client that sends each call again until it is answered."""
    while True:
        with suppress(SealError):
            view = await submit(adaptations, root)
            break
    while True:
        with suppress(SealError):
            await adaptations.cancel("default", "veldra")
            break
    publish(api, root)
    while True:
        try:
            await adaptations.delete("default", "veldra", uid=view.uid, keep_adapters=False)
            return
        except NotFound:
            return  # its answer was lost, or a sweep was faster
        except SealError:
            await adaptations.deletions.sweep()


@pytest.mark.parametrize("request_", REQUESTS)
async def test_every_request_of_the_front_door_may_fail_in_every_way(
    request_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.k8s.front.deletions.LOOK_SECONDS", 0.005)
    for fault in API_FAULTS:
        root, api = tmp_path / fault.name, MemoryApi()
        made: set[str] = set()
        api.watches.append(lambda seen, made=made: made.add(str(seen.body["metadata"]["uid"])))  # type: ignore[misc,index]
        life = failing(request_, fault, 3)
        async with collected(api):
            adaptations = replica(api, root, life)
            await insist(adaptations, api, root)
            store = ArtifactStore(str(root))
            while store.list("adaptations/deleting"):
                await adaptations.deletions.sweep()  # in the process once a minute
                await asyncio.sleep(0.01)
        assert life.struck >= 1 and len(made) == 1, fault.name
        assert not api.objects, fault.name
        left = {path.rpartition("/")[0] for path in store.list()}
        assert left == {"adaptations/requests", "adaptations/made"}, fault.name
