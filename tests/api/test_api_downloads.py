"""Adapters that go in pieces."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

import pytest
from front_door_harness import FrontDoor, Work, front_door, publish

from controller_svc.api import downloads, service
from controller_svc.api.downloads import Downloads
from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, InvalidInput, NotFound, SealError, Transient
from seal.records import AdapterReference
from seal.rpc.client import rpc_errors
from seal.rpc.convert import adapter_message
from seal.v1 import adaptation_pb2, common_pb2


async def downloaded(door: FrontDoor, adapter: common_pb2.AdapterRef) -> dict[str, bytes]:
    """The files, each checked against its header."""
    found: dict[str, bytes] = {}
    headers: list[adaptation_pb2.AdapterFile] = []
    call = door.stub.DownloadAdapter(adaptation_pb2.DownloadAdapterRequest(adapter=adapter))
    with rpc_errors():
        async for message in call:
            if message.HasField("file"):
                headers.append(message.file)
                found[message.file.name] = b""
            else:
                assert len(message.data) <= downloads.CHUNK_BYTES
                found[headers[-1].name] += message.data
    for header in headers:
        assert len(found[header.name]) == header.size
        assert hashlib.sha256(found[header.name]).hexdigest() == header.sha256
    return found


async def test_an_adapter_goes_in_pieces_with_its_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        large = publish(door.store, "run", "weights", size=100_000)
        found = await downloaded(door, adapter_message(large))
        assert set(found) == {"adapter_config.json", "adapter_model.safetensors"}
        assert found["adapter_model.safetensors"] == b"weights" * 100_000


@pytest.mark.parametrize(
    ("reference", "kind", "field"),
    [
        (AdapterReference(path="run/adapters/none", sha256="0" * 64), NotFound, "adapter.path"),
        (AdapterReference(path="../outside", sha256="0" * 64), InvalidInput, "adapter.path"),
        (AdapterReference(path="/etc", sha256="0" * 64), InvalidInput, "adapter.path"),
        (AdapterReference(path="", sha256="0" * 64), InvalidInput, "adapter.path"),
        (AdapterReference(path="run", sha256="no"), InvalidInput, "adapter.sha256"),
    ],
)
async def test_an_adapter_that_is_none_is_refused_by_its_field(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: AdapterReference,
    kind: type[SealError],
    field: str,
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        with pytest.raises(kind) as refused:
            await downloaded(door, adapter_message(reference))
        assert (type(refused.value), refused.value.field) == (kind, field)
        assert refused.value.remedy


class Client:
    """Takes what is written once it is let."""

    def __init__(self) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def write(self, message: adaptation_pb2.DownloadAdapterResponse) -> None:
        self.began.set()
        await self.go.wait()


async def test_so_many_downloads_go_at_once_some_wait_and_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MAX_DOWNLOADS", 1)
    monkeypatch.setattr(downloads, "WAITING", 1)
    store = ArtifactStore(str(tmp_path))
    adapter, door = publish(store, "run", "weights"), Downloads(store)
    first, second = Client(), Client()
    sending = asyncio.create_task(door.send(adapter, first.write))
    await first.began.wait()
    waiting = asyncio.create_task(door.send(adapter, second.write))
    await asyncio.sleep(0.1)
    with pytest.raises(Exhausted, match="2 downloads are under way") as refused:
        await door.send(adapter, Client().write)
    assert refused.value.remedy and refused.value.retry_after_seconds
    assert not second.began.is_set()
    sending.cancel()
    await second.began.wait()  # a client that has gone keeps no place
    second.go.set()
    await waiting


async def test_a_client_that_takes_nothing_keeps_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MAX_DOWNLOADS", 1)
    monkeypatch.setattr(service, "Downloads", partial(Downloads, silence_seconds=3.0))
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        large = adapter_message(publish(door.store, "run", "weights", size=3_000_000))
        small = adapter_message(publish(door.store, "run", "weights"))
        call = door.stub.DownloadAdapter(adaptation_pb2.DownloadAdapterRequest(adapter=large))
        stalled = aiter(call)
        await anext(stalled)
        assert await downloaded(door, small)
        with (
            pytest.raises(Transient, match="took less than 1048576 bytes") as given_up,
            rpc_errors(),
        ):
            async for _ in stalled:
                pass
        assert given_up.value.remedy


async def test_a_download_that_goes_on_and_on_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "DOWNLOAD_SECONDS", 0.1)
    store = ArtifactStore(str(tmp_path))
    with pytest.raises(Transient, match=r"or more than 0\.1 s") as given_up:
        await Downloads(store).send(publish(store, "run", "weights"), Client().write)
    assert given_up.value.remedy


async def test_an_adapter_that_is_deleted_while_it_goes_is_not_there(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    adapter = publish(store, "run", "weights")

    async def delete(message: adaptation_pb2.DownloadAdapterResponse) -> None:
        store.remove_directory(adapter)

    with pytest.raises(NotFound, match=adapter.sha256):
        await Downloads(store).send(adapter, delete)
