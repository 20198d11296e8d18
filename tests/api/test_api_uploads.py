"""Uploads that no adaptation is given are removed after a while, and nothing else is."""

from __future__ import annotations

import os
import time
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
    pieces,
    request,
)
from structlog.testing import capture_logs

from seal.v1 import adaptation_pb2, common_pb2

DAY_SECONDS = 24 * 3600


async def uploaded(door: FrontDoor, text: str) -> common_pb2.FileRef:
    return (await door.stub.UploadDocument(iter(pieces(text.encode())))).file


def let_pass(root: Path, path: str, *, days: float) -> None:
    """As if the file had been there for so long."""
    before = time.time() - days * DAY_SECONDS
    os.utime(root / path, (before, before))


async def swept(door: FrontDoor) -> None:
    """Wait until the sweep of the start is over."""
    await door.adaptations._sweep()


async def test_an_upload_without_an_adaptation_is_removed_by_a_start_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        forgotten, young, used = [
            await uploaded(door, f"{TEXT} {word}") for word in ("forgotten", "young", "used")
        ]
        document = adaptation_pb2.Document(name="veldra.txt", file=used)
        await door.stub.SubmitAdaptation(request(name="veldra", documents=[document]))
        await ended(door, "veldra")
    left = tmp_path / "adaptations/files/.tmp-1"
    left.write_text(TEXT)
    for path in (forgotten.path, used.path, str(left.relative_to(tmp_path))):
        let_pass(tmp_path, path, days=1.1)
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await swept(door)
        assert set(door.store.list("adaptations/files")) == {young.path, used.path}
        assert not left.exists()
        assert door.store.read_bytes(used.path)


async def test_uploads_are_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"sweep_seconds": 0.02})
    async with front_door(tmp_path, Work(), monkeypatch, settings=settings) as door:
        file = await uploaded(door, TEXT)
        await swept(door)
        assert door.store.exists(file.path)
        let_pass(tmp_path, file.path, days=1.1)
        await until(lambda: not door.store.exists(file.path), seconds=20)


async def test_what_is_uploaded_once_more_waits_as_long_as_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        file = await uploaded(door, TEXT)
        let_pass(tmp_path, file.path, days=3)
        assert await uploaded(door, TEXT) == file
        await swept(door)
        assert door.store.exists(file.path)


async def test_nothing_is_removed_while_it_is_not_known_what_an_adaptation_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
        (path,) = door.store.list("adaptations/files")
    let_pass(tmp_path, path, days=9)
    (tmp_path / "adaptations/objects/default/veldra.json").write_text("{")
    with capture_logs() as logs:
        async with front_door(tmp_path, Work(), monkeypatch) as door:
            await until(
                lambda: any(line["event"] == "uploads not swept up" for line in logs), seconds=20
            )
            assert door.store.exists(path)


async def test_a_process_that_only_tells_of_adaptations_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        file = await uploaded(door, TEXT)
    let_pass(tmp_path, file.path, days=9)
    settings = SETTINGS.model_copy(update={"max_running": 0, "sweep_seconds": 0.01})
    async with front_door(tmp_path, Work(), monkeypatch, settings=settings) as door:
        assert not door.adaptations._tidying
        assert door.store.exists(file.path)
