"""A full disk: what is at work waits in sight of everybody, and goes on once there is space."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from front_door_harness import Work, ended, front_door, request

from seal.records import Stage
from seal.v1 import adaptation_pb2


class Disk:
    """May be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr("seal.files.os.fsync", fsync)


async def test_an_adaptation_on_a_full_disk_says_that_it_waits_and_goes_on_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    work = Work(hold=lambda task: task.stage is Stage.ROLLOUT)
    async with front_door(tmp_path, work, monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))
        await work.began(Stage.ROLLOUT)
        disk.is_full = True
        work.hold = lambda task: False
        work.fail = lambda task: ValueError() if task.stage is Stage.ROLLOUT else None
        work.go.set()
        seen: adaptation_pb2.Adaptation | None = None
        watch = adaptation_pb2.WatchAdaptationRequest(name="veldra")
        async for message in door.stub.WatchAdaptation(watch):
            if message.event.progress.waiting and seen is None:
                get = adaptation_pb2.GetAdaptationRequest(name="veldra")
                seen = (await door.stub.GetAdaptation(get)).adaptation
                work.fail = lambda task: None
                disk.is_full = False
        one = await ended(door, "veldra")
    assert seen is not None and seen.state == adaptation_pb2.ADAPTATION_STATE_RUNNING
    (condition,) = (one for one in seen.conditions if one.type == "Progressing")
    assert (condition.status, condition.reason) == ("False", "Exhausted")
    assert "no space left to write" in condition.message and "free space" in condition.message
    assert seen.progress.waiting == f"Exhausted: {condition.message}"
    assert one.state == adaptation_pb2.ADAPTATION_STATE_PUBLISHED and not one.progress.waiting
