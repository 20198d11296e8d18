"""Turns of the controllers at a run: what an older controller's workers commit is refused.

Each turn, and each start of a stage in one, is a small file that is created and never written
again: {run}/epochs/000001, {run}/stages/r{round}-{stage}/epochs/000001.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from seal.artifacts import ArtifactStore
from seal.errors import Superseded
from seal.records import Stage
from seal.runs.store import in_thread, stage_path


async def take_epoch(store: ArtifactStore, run: str) -> int:
    """The next number of a controller's turn at a run; no two controllers get the same."""
    return await in_thread(_next_epoch, store, f"{run}/epochs")


async def newest_epoch(store: ArtifactStore, run: str) -> int:
    """The last turn that a controller took; 0 before the first."""
    return await in_thread(_newest, store, f"{run}/epochs")


async def claim_stage(store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int) -> None:
    """Note that an attempt of a stage is started in this epoch: older ones commit no more."""
    await in_thread(_claim, store, run, round, stage, epoch)


async def claim_newest(
    store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int
) -> None:
    """Claim a stage, and find out whether it may be started: in one turn of a thread.

    Raises:
        Superseded: a newer controller has started the stage.

    """

    def claim() -> None:
        _claim(store, run, round, stage, epoch)
        _check(store, run, ((round, stage),), epoch)

    await in_thread(claim)


async def check_epoch(store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int) -> None:
    """Before a worker commits what the stage goes on from.

    Raises:
        Superseded: a newer controller has started the stage.

    """
    await in_thread(_check, store, run, ((round, stage),), epoch)


async def check_epochs(
    store: ArtifactStore, run: str, stages: Iterable[tuple[int, Stage]], epoch: int
) -> None:
    """The same of several stages, each with its round, in one turn of a thread."""
    await in_thread(_check, store, run, stages, epoch)


def _claim(store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int) -> None:
    store.create_bytes(f"{stage_path(run, round, stage)}/epochs/{epoch:06d}", b"")


def _check(store: ArtifactStore, run: str, stages: Iterable[tuple[int, Stage]], epoch: int) -> None:
    for round, stage in stages:
        newest = _newest(store, f"{stage_path(run, round, stage)}/epochs")
        if newest > epoch:
            raise Superseded(
                f"this task is of epoch {epoch}, its stage was started anew in epoch {newest}",
                remedy="leave it: the newer task does the same work",
            )


def _newest(store: ArtifactStore, folder: str) -> int:
    return max((int(path.rsplit("/", 1)[-1]) for path in store.list(folder)), default=0)


def _next_epoch(store: ArtifactStore, folder: str) -> int:
    epoch = _newest(store, folder)
    mine = uuid.uuid4().bytes
    while True:
        epoch += 1
        if store.create_bytes(f"{folder}/{epoch:06d}", mine) == mine:
            return epoch
