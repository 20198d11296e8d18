"""The last checkpoint of a training in the artifact store.

One file by request id, replaced whole, deleted when the training has ended. The engine hands a
checkpoint over from its own thread and goes on at once; a thread of the file writes it. A newer one
that comes meanwhile replaces the one that waits, so a slow store holds up nothing and at most two
copies are in memory. A checkpoint is a saving of time and never a reason to fail: one that cannot
be written or read is logged, and the training goes on or starts anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from seal.engine import Checkpoints, SlotCheckpoint
from seal.errors import InvalidInput, NotFound, SealError

if TYPE_CHECKING:
    from seal.artifacts import ArtifactStore
    from trainer_svc.plan import TrainingPlan

log = structlog.get_logger(__name__)


class CheckpointFile:
    """The checkpoint of one training. All methods but `put` block on the store."""

    def __init__(self, store: ArtifactStore, plan: TrainingPlan) -> None:
        self._store, self._path = store, plan.checkpoint_path
        self._log = log.bind(run=plan.run, request_id=plan.request_id)
        self._lock = threading.Lock()
        self._waiting: SlotCheckpoint | None = None
        self._writer: threading.Thread | None = None

    def find(self) -> SlotCheckpoint | None:
        """The checkpoint that an earlier process left; None if there is none or it is damaged.

        Raises Transient if the store is away.
        """
        try:
            return SlotCheckpoint.from_bytes(self._store.read_bytes(self._path))
        except NotFound:
            return None
        except (InvalidInput, OSError) as error:
            self._log.warning(
                "checkpoint not usable, training anew", path=self._path, reason=str(error)
            )
            return None

    def put(self, checkpoint: SlotCheckpoint) -> None:
        """Have a checkpoint written; returns at once. Any thread."""
        with self._lock:
            self._waiting = checkpoint
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write, name="seal-checkpoint"
                )  # no daemon: an exit waits for it
                self._writer.start()

    def wait(self) -> None:
        """Wait until what was put is written."""
        if (writer := self._writer) is not None:
            writer.join()

    def remove(self) -> None:
        """Delete the file, if there is one."""
        try:
            self._store.remove(self._path)
        except (SealError, OSError) as error:
            self._log.warning("checkpoint not removed", path=self._path, reason=str(error))

    def _write(self) -> None:
        """The writer's thread: until nothing waits."""
        while True:
            with self._lock:
                checkpoint, self._waiting = self._waiting, None
                if checkpoint is None:
                    self._writer = None
                    return
            started = time.monotonic()
            try:
                content = checkpoint.to_bytes()
                self._store.write_bytes(self._path, content)
            except (SealError, OSError) as error:
                self._log.warning(
                    "checkpoint not written, training goes on",
                    path=self._path,
                    step=checkpoint.step,
                    reason=str(error),
                )
            except Exception:  # noqa: BLE001 - a defect: the next ones are written all the same
                self._log.exception(
                    "checkpoint not written, training goes on",
                    path=self._path,
                    step=checkpoint.step,
                )
            else:
                seconds = round(time.monotonic() - started, 3)
                self._log.info(
                    "checkpoint written", step=checkpoint.step, bytes=len(content), seconds=seconds
                )


@asynccontextmanager
async def checkpoints_of(
    store: ArtifactStore, plan: TrainingPlan
) -> AsyncIterator[Checkpoints | None]:
    """What the engine needs to keep checkpoints of this training, None if it keeps none.

    At the end of the block all are written.
    """
    if not plan.checkpoint_every_seconds:
        yield None
        return
    file = CheckpointFile(store, plan)
    resume = await asyncio.to_thread(file.find)
    try:
        yield Checkpoints(
            every_seconds=plan.checkpoint_every_seconds, on_checkpoint=file.put, resume=resume
        )
    finally:
        await asyncio.to_thread(file.wait)


def discard_checkpoint(store: ArtifactStore, plan: TrainingPlan) -> None:
    """Delete the checkpoint of a training whose result is stored; blocks on the store."""
    if plan.checkpoint_every_seconds:
        CheckpointFile(store, plan).remove()
