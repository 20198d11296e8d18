"""Copies of an object store's directories on the local disk, shared by all processes of this user.

Who reads a copy holds a shared lock on its manifest, and only copies whose lock is free are taken
away. Names come and go under one lock of the whole directory, so that what is found free is what
is taken. The kernel frees the locks of a process that dies. A copy is checked each time it is
handed out, so one that was damaged is fetched again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seal.errors import Transient
from seal.files import (
    CACHE_REMEDY,
    file_errors,
    remove_leftovers,
    temporary_sibling,
)
from seal.manifest import (
    DAMAGED_REMEDY,
    MANIFEST_FILE,
    Manifest,
    is_intact,
    verify_directory,
)

LEFTOVER_SECONDS = 3600.0
"""A `.tmp-` entry of this age belongs to no download that is alive."""
LOCK_FILE = ".lock"
_ATTEMPTS = 10


class LocalCopies:
    """A directory of copies, each named by the sha256 of its manifest; thread-safe.

    Beyond `capacity_bytes` the least recently used leave, unless they are in use.
    """

    def __init__(self, root: Path, *, capacity_bytes: int) -> None:
        self._root, self._capacity_bytes = root, capacity_bytes

    @contextmanager
    def held(
        self, manifest: Manifest, download: Callable[[Path], None], *, where: str
    ) -> Iterator[Path]:
        """A copy of what `manifest` lists, for the length of the block.

        `download` puts the files into an empty directory, if there is no intact copy; `where` is
        what errors call their source. Raises Internal if the files are not the manifest's, and what
        `download` raises.
        """
        local = self._root / manifest.sha256
        with file_errors(local, denied=CACHE_REMEDY):
            lease = self._lease(local, manifest, download, where)
            os.utime(local)
        try:
            yield local
        finally:
            lease.close()
            with suppress(OSError):  # too many copies do no harm to who has read one
                self._make_room()

    def _lease(
        self, local: Path, manifest: Manifest, download: Callable[[Path], None], where: str
    ) -> BinaryIO:
        for _ in range(_ATTEMPTS):
            lease = _hold(local, manifest) or self._install(local, manifest, download, where)
            if lease is not None:
                return lease
        raise Transient(
            f"copies leave {self._root} faster than they come", remedy="try again later"
        )

    def _install(
        self, local: Path, manifest: Manifest, download: Callable[[Path], None], where: str
    ) -> BinaryIO | None:
        """Download and lease a copy; None if somebody else's is in use."""
        temporary = temporary_sibling(local)
        temporary.mkdir(parents=True)
        try:
            download(temporary)
            (temporary / MANIFEST_FILE).write_bytes(manifest.to_bytes())
            verify_directory(temporary, manifest, remedy=DAMAGED_REMEDY, where=where)
            # Held before it has its name: nobody can take it for unused in between
            lease = _lock(temporary)
            with self._names():
                if _take_away(local):
                    temporary.rename(local)
                    return lease
            lease.close()
            return None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def _names(self) -> Iterator[None]:
        """Let nobody else give or take a name."""
        with (self._root / LOCK_FILE).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self) -> None:
        """Let the least recently used copies go that nobody holds."""
        used: list[tuple[float, int, Path]] = []
        for entry in self._root.iterdir():
            if len(entry.name) == 64:
                with suppress(FileNotFoundError):  # another process makes room too
                    size_bytes = sum(file.stat().st_size for file in entry.iterdir())
                    used.append((entry.stat().st_mtime, size_bytes, entry))
        total_bytes = 0
        for _, size_bytes, entry in sorted(used, reverse=True):
            total_bytes += size_bytes
            if total_bytes > self._capacity_bytes:
                with self._names():
                    _take_away(entry)
        remove_leftovers(self._root, older_than_seconds=LEFTOVER_SECONDS)


def _hold(directory: Path, manifest: Manifest) -> BinaryIO | None:
    """Lease of an intact copy; None if there is none."""
    try:
        lease = _lock(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with suppress(FileNotFoundError):
        # While this waited for the lock, the copy may have left and another come
        same = os.path.samestat(os.fstat(lease.fileno()), (directory / MANIFEST_FILE).stat())
        if same and is_intact(directory, manifest):
            return lease
    lease.close()
    return None


def _lock(directory: Path) -> BinaryIO:
    """Shared lock on a copy, held until it is closed."""
    file = (directory / MANIFEST_FILE).open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        file.close()
        raise
    return file


def _take_away(directory: Path) -> bool:
    """Remove a copy unless it is in use; tell whether its name is free."""
    aside = temporary_sibling(directory)
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):  # then nobody can hold it
            # Open for writing, since NFS grants exclusive locks to writers only
            file = held.enter_context((directory / MANIFEST_FILE).open("r+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        with suppress(FileNotFoundError):
            directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True
