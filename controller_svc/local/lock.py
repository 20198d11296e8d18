"""The lock that keeps other processes of this machine away from a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from seal.artifacts import ArtifactStore
from seal.errors import Conflict
from seal.files import file_errors

LOCK_FILE = ".lock"
"""In the run's directory."""


@contextmanager
def run_lock(store: ArtifactStore, run: str) -> Iterator[None]:
    """Keep other processes of this machine from the same run.

    The lock ends with the process, however it dies.
    Object stores have no locks: there the caller sees to it.

    Raises:
        Conflict: another process holds it, or has deleted the run just now.

    """
    parts = urlsplit(store.root_uri)
    if parts.scheme != "file":
        yield
        return
    lock_file = Path(unquote(parts.path)) / run / LOCK_FILE
    with file_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = lock_file.open("a+")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise Conflict(
                f"run {run!r} is being run by process {holder}", remedy="wait for it, or stop it"
            ) from None
        if not _is_there(lock_file, handle.fileno()):
            raise Conflict(f"run {run!r} has just been deleted", remedy="try again")
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file still is the one of that path.

    Who deletes a run holds its lock, and takes the file away with the rest: whoever had opened it
    before would hold a lock that nobody else meets.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
