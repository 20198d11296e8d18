"""Documents that come in pieces."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from front_door_harness import TEXT, FrontDoor, Work, ended, front_door, pieces, request

from controller_svc.api import files
from controller_svc.api.files import Files
from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, InvalidInput, Transient
from seal.limits import MAX_DOCUMENT_BYTES
from seal.rpc.client import rpc_errors
from seal.v1 import adaptation_pb2, common_pb2

CONTENT = (TEXT * 50).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DATA = adaptation_pb2.UploadDocumentRequest(data=b"more")


async def uploaded(
    door: FrontDoor, messages: list[adaptation_pb2.UploadDocumentRequest]
) -> common_pb2.FileRef:
    with rpc_errors():
        return (await door.stub.UploadDocument(iter(messages))).file


async def test_a_document_comes_in_pieces_and_is_adapted_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        file = await uploaded(door, pieces(CONTENT))
        assert (file.sha256, await uploaded(door, pieces(CONTENT))) == (SHA256, file)
        assert door.store.read_bytes(file.path) == CONTENT
        document = adaptation_pb2.Document(name="veldra.txt", file=file)
        answer = await door.stub.SubmitAdaptation(request(documents=[document]))
        # Whether it came in the request or before, it is the same document
        inline = adaptation_pb2.Document(name="veldra.txt", content=CONTENT)
        again = await door.stub.SubmitAdaptation(request(documents=[inline]))
        assert (answer.created, again.created) == (True, False)
        assert (await ended(door, answer.adaptation.name)).counts.documents == 1


async def test_a_refused_upload_is_heard_out_so_that_its_client_hears_why(tmp_path: Path) -> None:
    sent = 0

    async def messages() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        nonlocal sent
        for message in [DATA, *pieces(CONTENT)]:
            sent += 1
            yield message

    with pytest.raises(InvalidInput):
        await Files(ArtifactStore(str(tmp_path))).receive(messages())
    assert sent == 1 + len(pieces(CONTENT))


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "header"),
        ([DATA], "header"),
        ([adaptation_pb2.UploadDocumentRequest()], "header"),
        (pieces(CONTENT, sha256="x" * 64), "header.sha256"),
        (pieces(CONTENT, sha256="0" * 64), "header.sha256"),
        (pieces(b"", size=0), "header.size"),
        (pieces(b"", size=MAX_DOCUMENT_BYTES + 1), "header.size"),
        (pieces(CONTENT)[:-1], "data"),
        ([*pieces(CONTENT), DATA], "data"),
        (pieces(CONTENT) + pieces(CONTENT)[:1], "data"),
    ],
    ids=[
        "nothing", "no header", "an empty message", "no digest", "the wrong digest", "no content",
        "too large", "cut off", "more than was said", "two headers",
    ],
)  # fmt: skip
async def test_an_upload_that_is_not_what_it_says_is_refused_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[adaptation_pb2.UploadDocumentRequest],
    field: str,
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        with pytest.raises(InvalidInput) as refused:
            await uploaded(door, messages)
        assert refused.value.field == field
        assert refused.value.remedy
        assert not door.store.list("adaptations/files")


async def test_an_upload_that_says_nothing_more_is_given_up(tmp_path: Path) -> None:
    async def stalled() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        yield pieces(CONTENT)[0]
        await asyncio.Event().wait()

    with pytest.raises(Transient):
        await Files(ArtifactStore(str(tmp_path)), silence_seconds=0.05).receive(stalled())


async def test_of_many_uploads_some_wait_and_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UPLOADS", 1)
    monkeypatch.setattr(files, "WAITING_UPLOADS", 1)
    monkeypatch.setattr(files, "REFUSED_SECONDS", 0.05)
    door, go = Files(ArtifactStore(str(tmp_path))), asyncio.Event()

    async def sent() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        header, *rest = pieces(CONTENT)
        yield header
        await go.wait()
        for message in rest:
            yield message

    two = [asyncio.create_task(door.receive(sent())) for _ in range(2)]
    await asyncio.sleep(0.1)
    with pytest.raises(Exhausted, match="2 uploads are under way") as refused:
        await door.receive(sent())
    go.set()
    assert refused.value.remedy and refused.value.retry_after_seconds
    assert len(set(await asyncio.gather(*two))) == 1


@pytest.mark.parametrize("at_once", [0, 2 * files.LEAST_BYTES])
async def test_an_upload_of_empty_pieces_keeps_no_place_for_ever(
    tmp_path: Path, at_once: int
) -> None:
    async def trickle() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        header = adaptation_pb2.UploadHeader(sha256="0" * 64, size=10**7)
        yield adaptation_pb2.UploadDocumentRequest(header=header)
        yield adaptation_pb2.UploadDocumentRequest(data=bytes(at_once))
        while True:
            await asyncio.sleep(0.01)
            yield adaptation_pb2.UploadDocumentRequest(data=b"")

    async with asyncio.timeout(10):
        with pytest.raises(Transient, match="sent 0 bytes"):
            await Files(ArtifactStore(str(tmp_path)), silence_seconds=0.1).receive(trickle())


async def test_an_upload_that_goes_on_and_on_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        header = adaptation_pb2.UploadHeader(sha256="0" * 64, size=MAX_DOCUMENT_BYTES)
        yield adaptation_pb2.UploadDocumentRequest(header=header)
        for _ in range(50):
            await asyncio.sleep(0.05)
            yield adaptation_pb2.UploadDocumentRequest(data=bytes(files.LEAST_BYTES))

    monkeypatch.setattr(files, "UPLOAD_SECONDS", 0.2)
    with pytest.raises(Transient, match=r"of 67108864 bytes in 0\.2 s") as refused:
        await Files(ArtifactStore(str(tmp_path)), silence_seconds=5).receive(slow())
    assert refused.value.remedy


async def test_uploads_leave_room_for_all_else_in_the_store(tmp_path: Path) -> None:
    async def sent() -> AsyncIterator[adaptation_pb2.UploadDocumentRequest]:
        for message in pieces(CONTENT):
            yield message

    store = ArtifactStore(str(tmp_path))
    store.write_bytes("adaptations/files/other", bytes(10))
    full = Files(store, stored_bytes=len(CONTENT) + 9)
    with pytest.raises(Exhausted, match="10 bytes of documents") as refused:
        await full.receive(sent())
    assert refused.value.remedy and store.list("adaptations/files") == ("adaptations/files/other",)
    for enough in (len(CONTENT) + 10, 0):
        assert await Files(store, stored_bytes=enough).receive(sent())
        store.remove(f"adaptations/files/{SHA256}")


async def test_documents_in_a_request_take_of_the_same_room_as_uploads(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    bounded = Files(store, stored_bytes=2 * len(CONTENT) - 1)
    kept = await bounded.keep(CONTENT)
    with pytest.raises(Exhausted, match=f"{len(CONTENT)} bytes of documents") as refused:
        await bounded.keep(CONTENT[::-1])
    assert refused.value.remedy and store.list("adaptations/files") == (kept.path,)
    assert await bounded.keep(CONTENT) == kept  # takes no more room
    store.remove(kept.path)
    assert await bounded.keep(CONTENT[::-1])


async def test_the_store_is_not_listed_for_every_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listings = ArtifactStore(str(tmp_path)), 0
    count = store.bytes_under

    def counted(prefix: str) -> int:
        nonlocal listings
        listings += 1
        return count(prefix)

    monkeypatch.setattr(store, "bytes_under", counted)
    bounded = Files(store, stored_bytes=10 * len(CONTENT))
    for place in range(5):
        await bounded.keep(CONTENT[place:])
    assert listings == 1
    monkeypatch.setattr(files, "LISTED_SECONDS", 0.0)
    await bounded.keep(CONTENT)
    assert listings == 2
