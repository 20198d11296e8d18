"""Reading what is submitted: within bounds of time and memory, whatever callers do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

import pytest
from eventually import until
from front_door_harness import TEXT, Work, front_door, pieces, request
from tiny_pdf import tiny_pdf, written_pdf

from controller_svc.adaptations import RequestKey
from controller_svc.api import reader, reading, submission
from controller_svc.api.files import Files
from controller_svc.api.reading import Unread
from controller_svc.api.submission import Submissions
from seal.artifacts import ArtifactStore
from seal.client import AsyncClient, ClientOptions
from seal.client import Document as GivenDocument
from seal.documents import Document, read_document
from seal.errors import Exhausted, Internal, InvalidInput
from seal.rpc.client import rpc_errors
from seal.v1 import adaptation_pb2

KEY = RequestKey(caller="", namespace="default", request_id="one")
STRAY = adaptation_pb2.Question(question="Who built it?", answers=["Nobody of the text"])
ASLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
"""A child that never answers."""
ANSWERING = "import sys\nfor _ in sys.stdin: print('{}', flush=True)"
"""A child that answers at once."""


def document(name: str, content: bytes) -> adaptation_pb2.Document:
    return adaptation_pb2.Document(name=name, content=content)


def heavy(**changes: object) -> adaptation_pb2.SubmitAdaptationRequest:
    """A request that a process of its own reads."""
    pages = tiny_pdf([["The tower of Veldra stands on a hill."]])
    return request(**{"documents": [document("veldra.pdf", pages)], **changes})


@pytest.fixture
def submissions(tmp_path: Path) -> Submissions:
    return Submissions(Files(ArtifactStore(str(tmp_path))))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """All that are started."""
    started: list[Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*args: str, **kwargs: object) -> Process:
        started.append(await start(*args, **kwargs))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return started


async def test_documents_that_are_read_by_a_process_of_their_own_are_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[Process]
) -> None:
    text = (TEXT + "\n\n").encode() * 10_000  # several pieces on the pipe
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        file = (await door.stub.UploadDocument(iter(pieces(text, piece=100_000)))).file
        documents = [*heavy().documents, adaptation_pb2.Document(name="a.txt", file=file)]
        assert (await door.stub.SubmitAdaptation(heavy(documents=documents))).created
        (child,) = children
        assert child.returncode is not None
        documents[1] = document("b.pdf", b"%PDF")
        with pytest.raises(InvalidInput, match="no PDF") as refused, rpc_errors():
            await door.stub.SubmitAdaptation(heavy(request_id="two", documents=documents))
        assert refused.value.field == "documents[1].content" and refused.value.remedy
        with pytest.raises(InvalidInput) as refused, rpc_errors():
            await door.stub.SubmitAdaptation(heavy(request_id="three", questions=[STRAY]))
        assert refused.value.field == "questions[0].answers"


async def test_what_takes_too_much_memory_to_read_is_refused_by_its_place(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<a " + b"x " * 1_000_000 + b">two words</a>"
    asked = heavy(documents=[document("b.html", page)])
    with pytest.raises(InvalidInput, match=r"'b\.html' takes too much") as refused:
        await submissions.read(asked, KEY, "0")
    assert refused.value.field == "documents[0].content" and "cut it" in refused.value.remedy
    assert (await submissions.read(heavy(), KEY, "0")).name == ""


async def test_what_takes_too_long_to_read_is_refused_by_its_place(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch, children: list[Process]
) -> None:
    monkeypatch.setattr(reader, "READ_SECONDS", 0.5)
    endless = written_pdf([b"q Q " * 1_500_000], packed=True)
    asked = heavy(documents=[document("b.pdf", endless)])
    with pytest.raises(InvalidInput, match=r"'b\.pdf' takes too much") as refused:
        await submissions.read(asked, KEY, "0")
    assert refused.value.field == "documents[0].content"
    assert children[0].returncode is not None
    monkeypatch.setattr(reader, "COMMAND", ASLEEP)
    async with reader.reader_process() as late:
        with pytest.raises(InvalidInput, match="questions take too much") as refused:
            await late.check([], passage_tokens=256)
    assert refused.value.field == "questions"


async def test_the_time_that_the_store_takes_is_none_of_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "READ_SECONDS", 5.0)
    monkeypatch.setattr(reader, "COMMAND", (sys.executable, "-c", ANSWERING))
    async with reader.reader_process() as process:
        for place in range(2):
            await process.add(Unread("veldra.txt", "", b"", f"documents[{place}]"))
            await asyncio.sleep(3.0)  # the store
        await process.check((), passage_tokens=256)


async def test_a_document_that_kills_its_reader_is_refused_and_a_reader_that_is_broken_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unread = Unread("a.html", "", b"two words" * 1_000_000, "documents[0]")
    killed = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(reader, "COMMAND", (sys.executable, "-c", killed))
    async with reader.reader_process() as dead:
        with pytest.raises(InvalidInput, match="takes too much"):
            await dead.add(unread)
    monkeypatch.setattr(reader, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    async with reader.reader_process() as broken:
        with pytest.raises(Internal, match="ended with 1"):
            await broken.add(unread)


async def test_the_document_of_a_caller_who_gives_up_is_read_no_more(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch, children: list[Process]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(reader, "COMMAND", ASLEEP)
        asked = asyncio.create_task(submissions.read(heavy(), KEY, "0"))
        await until(lambda: children)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert children[0].returncode is not None
    assert (await submissions.read(heavy(), KEY, "0")).name == ""


async def test_plain_text_waits_for_no_other_document_and_too_many_others_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[Process]
) -> None:
    monkeypatch.setattr(submission, "WAITING", 2)
    submissions = Submissions(Files(ArtifactStore(str(tmp_path))))
    monkeypatch.setattr(reader, "COMMAND", ASLEEP)
    tries = [asyncio.create_task(submissions.read(heavy(), KEY, "0")) for _ in range(3)]
    await until(lambda: children)
    with pytest.raises(Exhausted) as refused:
        await submissions.read(heavy(), KEY, "0")
    assert refused.value.retry_after_seconds and refused.value.remedy
    assert (await submissions.read(request(), KEY, "0")).name == ""
    assert len(children) == 1
    for one in tries:
        one.cancel()
    await asyncio.gather(*tries, return_exceptions=True)
    monkeypatch.undo()
    assert (await submissions.read(heavy(), KEY, "0")).name == ""


async def test_documents_that_take_longer_to_read_than_a_call_are_submitted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str, media_type: str, content: bytes, *, field: str) -> Document:
        time.sleep(1.5)
        return read_document(name, media_type, content, field=field)

    monkeypatch.setattr(reading, "read_document", slow)
    options = ClientOptions(call_seconds=0.5, retry_seconds=2.0)
    async with (
        front_door(tmp_path, Work(), monkeypatch) as door,
        AsyncClient(door.address, options=options) as client,
    ):
        given = GivenDocument(name="veldra.txt", content=TEXT.encode())
        assert (await client.submit([given])).created


async def test_questions_on_more_text_than_is_kept_are_left_to_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHECKED_CHARACTERS", 10)
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        answer = await door.stub.SubmitAdaptation(request(questions=[STRAY]))
    assert answer.created


def test_who_reads_documents_loads_no_model() -> None:
    loaded = "import sys, controller_svc.api.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
