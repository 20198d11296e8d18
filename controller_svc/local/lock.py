"""The lock that keeps other processes of this machine away from a run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit

from controller_svc.local.ending import ends_when
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Transient
from seal.files import file_errors

LOCK_FILE = ".lock"
"""In the run's directory."""


LONGEST_WAIT_SECONDS = 1.0
"""Who begins a run waits so long for a holder: it may only be looking, or about to end."""
_PAUSE_SECONDS = 0.05


class Locked(Conflict):
    """Another process of this machine has the run, or had it a moment ago."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock that is held."""

    root_uri: str
    path: Path
    descriptor: int

    def loss(self) -> Transient | None:
        """The error if its file is not there any more: what lay beside it is not, either."""
        if _is_there(self.path, self.descriptor):
            return None
        return Transient(
            f"{self.path.parent} was deleted, or its volume taken away, while it was in use",
            remedy=f"bring back {self.root_uri} with what was in it, then the same command goes "
            "on; without it, it begins anew",
        )


@asynccontextmanager
async def while_held(lock: Lock | None) -> AsyncIterator[None]:
    """End the block when the lock is lost, whatever else goes wrong without its files.

    Raises:
        Transient: it was lost.

    """
    if lock is None:
        yield
        return
    try:
        async with ends_when(lock.loss):
            yield
    except Exception as error:  # whatever the lack of files made of it
        if (loss := lock.loss()) is not None:
            raise loss from error
        raise
    if (loss := lock.loss()) is not None:
        raise loss


@contextmanager
def run_lock(store: ArtifactStore, run: str) -> Iterator[Lock | None]:
    """Keep other processes of this machine from the same run.

    The lock ends with the process, however it dies.
    Object stores have no locks: there it is None, and the caller sees to it.

    Raises:
        Locked: another process holds it, or has deleted the run just now.

    """
    lock_file = _lock_file(store, run)
    if lock_file is None:
        yield None
        return
    with file_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = lock_file.open("a+")
    with handle:
        _take(handle, fcntl.LOCK_EX, run, longest_wait_seconds=LONGEST_WAIT_SECONDS)
        if not _is_there(lock_file, handle.fileno()):
            raise Locked(f"run {run!r} has just been deleted", remedy="try again")
        _name_holder(handle.fileno())
        yield Lock(root_uri=store.root_uri, path=lock_file, descriptor=handle.fileno())


def check_free(store: ArtifactStore, run: str) -> None:
    """Raise Locked if another process of this machine holds a run's lock; writes nothing."""
    lock_file = _lock_file(store, run)
    if lock_file is None:
        return
    with file_errors(lock_file):
        try:
            handle = lock_file.open()
        except (FileNotFoundError, NotADirectoryError):
            return
    with handle:
        # Shared, so that those who look do not take each other for a run
        _take(handle, fcntl.LOCK_SH, run, longest_wait_seconds=0.0)


def _name_holder(descriptor: int) -> None:
    """Say who holds a lock, for whoever meets it; it is held all the same on a full disk."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())


def _lock_file(store: ArtifactStore, run: str) -> Path | None:
    parts = urlsplit(store.root_uri)
    return Path(unquote(parts.path)) / run / LOCK_FILE if parts.scheme == "file" else None


def _take(handle: TextIO, how: int, run: str, *, longest_wait_seconds: float) -> None:
    end = time.monotonic() + longest_wait_seconds
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                break
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    handle.seek(0)
    holder = handle.read().strip() or "unknown"
    raise Locked(f"run {run!r} is being run by process {holder}", remedy="wait for it, or stop it")


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file still is the one of that path.

    Who deletes a run holds its lock, and takes the file away with the rest: whoever had opened it
    before would hold a lock that nobody else meets.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:  # of a volume that was taken away also ESTALE or EIO
        return False
