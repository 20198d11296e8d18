"""How far a shard at work is, told in a small file of the store for whoever shows it to people.

It is written seldom, replaced each time and removed at the end. Nothing rests on it: a file that
cannot be written or read is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import structlog

from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.records import Record, Stage
from seal.runs.store import in_thread, shard_path
from seal.runs.task import ShardTask

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 15.0
"""Between two writes."""


def share_path(run: str, round: int, stage: Stage, shard: int) -> str:
    """Where a shard tells how far it is."""
    return f"{shard_path(run, round, stage, shard)}/share.json"


def read_shares(store: ArtifactStore, paths: Iterable[str]) -> list[ShardShare]:
    """What shards tell; those that tell nothing, or nothing that can be read, are left out."""
    found = []
    for path in paths:
        with suppress(SealError):
            found.append(store.read_json(path, ShardShare))
    return found


class ShardShare(Record):
    """How far a shard is."""

    share: float
    """What is done of it, in [0, 1]."""


class ShareTeller:
    """What a task says of itself, written down once in a while."""

    def __init__(self, store: ArtifactStore, task: ShardTask) -> None:
        self._store, self._path = store, share_path(task.run, task.round, task.stage, task.shard)
        self._share = 0.0
        self._written: float | None = None

    def tell(self, share: float) -> None:
        """The task is so far."""
        self._share = min(1.0, max(0.0, share))

    @asynccontextmanager
    async def telling(self, *, interval_seconds: float = INTERVAL_SECONDS) -> AsyncIterator[None]:
        """Write what is told for as long as the block takes."""
        writing = asyncio.create_task(self._write(interval_seconds))
        try:
            yield
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            with suppress(SealError):  # one that an attempt before has left goes, too
                await in_thread(self._store.remove, self._path)

    async def _write(self, interval_seconds: float) -> None:
        while True:
            await asyncio.sleep(interval_seconds)
            if self._share != self._written:
                share = ShardShare(share=self._share)
                try:
                    await in_thread(self._store.write_json, self._path, share)
                except SealError as error:
                    log.info("share not told", path=self._path, cause=str(error))
                else:
                    self._written = share.share
