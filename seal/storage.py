"""What a place for bytes under relative paths promises, and the first of two: a directory.

Of this machine, or of a mounted volume. The other, an object store, is in `seal.object_storage`.
They differ in what is atomic: a directory has rename and hard links, an object store has single
puts that appear whole or on a condition. Both give the promises of `seal.artifacts`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from seal.errors import InvalidInput, NotFound, SealError
from seal.files import (
    TEMPORARY_PREFIX,
    create_atomically,
    file_errors,
    install_directory,
    remove_leftovers,
    temporary_sibling,
    write_atomically,
)
from seal.manifest import (
    DAMAGED_REMEDY,
    MANIFEST_FILE,
    Manifest,
    is_intact,
    read_manifest,
    verify_directory,
    write_directory,
)


class Storage(Protocol):
    """Bytes by relative path; every path has been checked by the caller.

    A place that is away for the moment is Transient, never an absent file; a full one is Exhausted.
    """

    def check_place(self) -> None:
        """Refuse, by InvalidInput, a root that can be seen to be unusable; nothing is written."""

    def make_place(self) -> None:
        """Make the root, if it is one that has to be made; raises as `check_place`."""

    def uri(self, path: str) -> str:
        """Full URI of a path."""

    def read(self, path: str) -> bytes:
        """Content. Raises NotFound."""

    def write(self, path: str, content: bytes) -> None:
        """Create or replace, whole or not at all. Raises Exhausted if the disk is full."""

    def create(self, path: str, content: bytes) -> bool:
        """Create a file, whole, unless one is there; tell whether this call did.

        Of many callers at once one creates. False may also mean an earlier try of the caller's own
        whose reply was lost, so who must know compares the content.
        """

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this name."""

    def age_seconds(self, path: str) -> float:
        """Seconds since a file was written last. Raises NotFound."""

    def size_bytes(self, path: str) -> int:
        """Length of a file. Raises NotFound."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""

    def list(self, prefix: str) -> tuple[str, ...]:
        """Paths of all files beneath a prefix, sorted; empty if there is none."""

    def publish(self, source: Path, names: tuple[str, ...], prefix: str) -> str:
        """Put the named files under `{prefix}/{sha256 of their manifest}`, the manifest last.

        Returns the sha256.
        """

    def fetch(self, path: str, sha256: str) -> AbstractContextManager[Path]:
        """Local, verified directory of what `publish` put at `path`, kept while in use."""

    def remove_directory(self, path: str) -> None:
        """Delete what `publish` put at `path`, or what is left of it; a reader sees all or none.

        Nobody may be publishing the same content there.
        """

    def bytes_under(self, prefix: str) -> int:
        """Size of all files beneath a prefix together."""

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Delete what killed writers left beneath a prefix; returns the number of entries."""

    def remove_empty_directories(self, prefix: str) -> None:
        """Delete a prefix and all beneath it that holds no file, where places have directories."""


class LocalStorage:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check_place(self) -> None:
        """Look at the root, or at the directory in which it would have to be made."""
        place = _nearest(self._root)
        if not place.is_dir():
            raise _unusable(self._root, f"{place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise _unusable(self._root, f"this user may not write into {place}")

    def make_place(self) -> None:
        """Make the directory, and those above it."""
        self.check_place()
        with file_errors(self._root):
            try:
                self._root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno not in _UNUSABLE_ROOT:
                    raise
                raise _unusable(self._root, f"it cannot be made: {error.strerror}") from error

    def uri(self, path: str) -> str:
        """Percent-encoded `file://` URI."""
        return (self._root / path).as_uri()

    def read(self, path: str) -> bytes:
        """Content of a file below the root."""
        with file_errors(self.uri(path)):
            return self._locate(path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """Replace a file by rename."""
        write_atomically(self._locate(path), content)

    def create(self, path: str, content: bytes) -> bool:
        """Give a finished file its name by a hard link, which fails if the name is taken."""
        return create_atomically(self._locate(path), content)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this name."""
        # Not Path.is_file: what it calls False depends on Python's version
        try:
            with file_errors(self.uri(path)):
                return stat.S_ISREG(self._locate(path).stat().st_mode)
        except NotFound:
            return False

    def age_seconds(self, path: str) -> float:
        """By the time of its last change."""
        with file_errors(self.uri(path)):
            return time.time() - self._locate(path).stat().st_mtime

    def size_bytes(self, path: str) -> int:
        """As the file system has it."""
        with file_errors(self.uri(path)):
            return self._locate(path).stat().st_size

    def remove(self, path: str) -> None:
        """Unlink a file below the root."""
        with file_errors(self.uri(path)):
            self._located_entry(path).unlink(missing_ok=True)

    def list(self, prefix: str) -> tuple[str, ...]:
        """Walk the tree below a prefix, unfinished entries left out."""
        root = self._locate("")
        return tuple(sorted(path.relative_to(root).as_posix() for path in self._walk(prefix)))

    def _walk(self, prefix: str) -> Iterator[Path]:
        """All finished files below a prefix."""
        with file_errors(self.uri(prefix)):
            for directory, children, names in os.walk(
                self._locate(prefix), onerror=_raise_unless_absent
            ):
                children[:] = [name for name in children if not name.startswith(TEMPORARY_PREFIX)]
                for name in names:
                    if not name.startswith(TEMPORARY_PREFIX):
                        yield Path(directory) / name

    def publish(self, source: Path, names: tuple[str, ...], prefix: str) -> str:
        """Copy into a temporary directory, then rename it."""
        parent = self._locate(prefix)
        temporary = temporary_sibling(parent / "directory")
        with file_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            try:
                manifest = write_directory(source, names, temporary)
                install_directory(
                    temporary,
                    parent / manifest.sha256,
                    adopt=lambda final: is_intact(final, manifest),
                )
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return manifest.sha256

    @contextmanager
    def fetch(self, path: str, sha256: str) -> Iterator[Path]:
        """Verify the published directory itself and hand it out."""
        directory = self._locate(path)

        def manifest_of_it() -> Manifest:
            return read_manifest(
                lambda: (directory / MANIFEST_FILE).read_bytes(),
                uri=self.uri(path),
                sha256=sha256,
            )

        with file_errors(self.uri(path)):
            manifest = manifest_of_it()
        try:
            with file_errors(self.uri(path)):
                verify_directory(directory, manifest, remedy=DAMAGED_REMEDY)
            yield directory
        except (OSError, SealError):
            with file_errors(self.uri(path)):
                manifest_of_it()  # what was removed meanwhile is not there, and not damaged
            raise

    def remove_directory(self, path: str) -> None:
        """Take its name away, then its files."""
        directory = self._located_entry(path)
        aside = temporary_sibling(directory)
        with file_errors(self.uri(path)), suppress(FileNotFoundError):
            directory.rename(aside)
            shutil.rmtree(aside)

    def bytes_under(self, prefix: str) -> int:
        """Sum of the sizes of the files below a prefix."""
        total = 0
        for path in self._walk(prefix):
            with suppress(FileNotFoundError):  # removed since it was listed
                total += path.lstat().st_size
        return total

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Delete old `.tmp-` entries below a prefix."""
        removed = 0
        with file_errors(self.uri(prefix)):
            for directory, children, _ in os.walk(self._locate(prefix)):
                children[:] = [name for name in children if not name.startswith(TEMPORARY_PREFIX)]
                removed += remove_leftovers(Path(directory), older_than_seconds=older_than_seconds)
        return removed

    def remove_empty_directories(self, prefix: str) -> None:
        """From the deepest up; what a writer fills meanwhile stays."""
        with file_errors(self.uri(prefix)):
            for directory, _, _ in os.walk(
                self._locate(prefix), topdown=False, onerror=_raise_unless_absent
            ):
                try:
                    Path(directory).rmdir()
                except OSError as error:
                    if error.errno not in _NOT_EMPTY:
                        raise

    def _located_entry(self, path: str) -> Path:
        """As `_locate`, but a link at the end of the path is the entry itself."""
        parent, _, name = path.rpartition("/")
        return self._locate(parent) / name

    def _locate(self, path: str) -> Path:
        """Absolute path without links; a link that leads out of the root is refused."""
        root = self._root.resolve()
        located = (root / path).resolve()
        if not located.is_relative_to(root):
            raise InvalidInput(
                f"{self.uri(path)} leads out of the artifact root through a link",
                remedy="remove the link",
            )
        return located


_UNUSABLE_ROOT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS}
)


_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})
"""What rmdir says of a directory that holds something, or has gone."""


def _nearest(path: Path) -> Path:
    """The path itself, or the first above it that can be looked at."""
    for place in (path, *path.parents):
        with suppress(OSError):
            place.stat()
            return place
    return Path(path.anchor)


def _unusable(root: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"the directory {root} cannot be used: {why}",
        field="root",
        remedy="name a directory that this user can write, or can make",
    )


def _raise_unless_absent(error: OSError) -> None:
    """For `os.walk`, which takes a directory that cannot be read for an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
