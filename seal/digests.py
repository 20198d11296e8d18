"""Digests of large files, computed once.

A file that has neither been written nor replaced since keeps its digest: this process remembers it,
and the user's cache keeps it for the next one. Nothing is ever written beside the file itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seal.errors import SealError
from seal.files import sha256_of_file, write_atomically

SETTLED_SECONDS = 2.0
"""A file that was written so shortly before its digest could be written again within the same time
stamp: its digest is not kept."""
_THREADS = 4


class _Version(BaseModel):
    """What tells one state of a file from the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    modified_ns: int
    inode: int


class _KeptDigest(BaseModel):
    """A digest in the user's cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: _Version
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def remembered_sha256(path: Path) -> str:
    """sha256 of a file, computed once per process unless the file changes."""
    return _digest_of_version(_version(path))


def kept_sha256s(
    paths: Sequence[Path], *, cache: Path, progress: Callable[[int, int], None]
) -> tuple[str, ...]:
    """sha256 of each file, computed once for all processes that share the cache directory.

    `progress(bytes done, bytes in all)` is called often, from several threads but never at once.
    """
    total, done, lock = sum(path.stat().st_size for path in paths), [0], Lock()

    def report(more: int) -> None:
        with lock:
            done[0] += more
            progress(done[0], total)

    with ThreadPoolExecutor(_THREADS) as threads:
        return tuple(threads.map(lambda path: _kept_sha256(path, cache, report), paths))


def _kept_sha256(path: Path, cache: Path, report: Callable[[int], None]) -> str:
    version = _version(path)
    file = cache / "digests" / f"{hashlib.sha256(version.path.encode()).hexdigest()}.json"
    with suppress(OSError, ValidationError):
        kept = _KeptDigest.model_validate_json(file.read_bytes())
        if kept.version == version:
            report(version.bytes)
            return kept.sha256
    before = 0

    def on_progress(read: int) -> None:
        nonlocal before
        report(read - before)
        before = read

    digest = sha256_of_file(path, on_progress=on_progress)
    if time.time() - version.modified_ns / 1e9 > SETTLED_SECONDS and _version(path) == version:
        with suppress(OSError, SealError):  # a cache that cannot be written costs time, no more
            file.parent.mkdir(parents=True, exist_ok=True)
            content = _KeptDigest(version=version, sha256=digest).model_dump_json()
            write_atomically(file, content.encode())
    return digest


def _version(path: Path) -> _Version:
    status = path.stat()
    return _Version(
        path=str(path.resolve()),
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        inode=status.st_ino,
    )


@lru_cache(maxsize=256)
def _digest_of_version(version: _Version) -> str:
    return sha256_of_file(Path(version.path))
