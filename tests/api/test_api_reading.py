"""Reading what is submitted: within bounds of threads and memory, whatever callers do."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from front_door_harness import TEXT, Work, front_door, request

from controller_svc.adaptations import RequestKey
from controller_svc.api import submission
from controller_svc.api.files import Files
from controller_svc.api.submission import READERS, Submissions
from seal.artifacts import ArtifactStore
from seal.client import AsyncClient, ClientOptions
from seal.client import Document as GivenDocument
from seal.documents import Document, read_document
from seal.v1 import adaptation_pb2

KEY = RequestKey(caller="", namespace="default", request_id="one")
STRAY = adaptation_pb2.Question(question="Who built it?", answers=["Nobody of the text"])


async def test_callers_who_give_up_take_no_more_threads_than_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, lock = threading.Event(), threading.Lock()
    at_once = most = 0

    def slow(name: str, media_type: str, content: bytes, *, field: str) -> Document:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        go.wait(30)
        with lock:
            at_once -= 1
        return read_document(name, media_type, content, field=field)

    monkeypatch.setattr(submission, "read_document", slow)
    submissions = Submissions(Files(ArtifactStore(str(tmp_path))))
    tries = []
    for _ in range(3 * READERS):
        tries.append(asyncio.create_task(submissions.read(request(), KEY, "0")))
        await asyncio.sleep(0.05)
        tries[-1].cancel()
    await asyncio.sleep(0.1)
    go.set()
    ended = await asyncio.gather(*tries, return_exceptions=True)
    assert most == READERS
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)
    assert (await submissions.read(request(), KEY, "0")).name == ""


async def test_documents_that_take_longer_to_read_than_a_call_are_submitted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str, media_type: str, content: bytes, *, field: str) -> Document:
        time.sleep(1.5)
        return read_document(name, media_type, content, field=field)

    monkeypatch.setattr(submission, "read_document", slow)
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
    monkeypatch.setattr(submission, "CHECKED_CHARACTERS", 10)
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        answer = await door.stub.SubmitAdaptation(request(questions=[STRAY]))
    assert answer.created
