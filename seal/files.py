"""Local files that appear whole or not at all, and the user's cache directory.

Everything is written under a `.tmp-` name in the directory where it will live, flushed to the disk,
and renamed: a rename within one file system is atomic, so a reader sees the old state or the new
one, and a crash leaves at most a `.tmp-` entry that no reader looks at.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from seal.errors import (
    Exhausted,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)

TEMPORARY_PREFIX = ".tmp-"
"""First characters of every name that readers skip."""
DISK_RETRY_SECONDS = 30.0
"""How long a caller is asked to wait after the disk was full."""
ACCESS_REMEDY = "give this user access to it, or choose another place"
CACHE_REMEDY = "set SEAL_CACHE to a directory that this user can write (in a pod: an emptyDir)"
"""What to do where the cache cannot be written."""
_CHUNK_BYTES = 1 << 20
_AWAY = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENXIO,
        errno.ENODEV,
        errno.ENOLCK,
        errno.EBUSY,
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)
"""A disk, a volume's server or this process is short of something for the moment."""
_UNUSABLE = frozenset({errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def cache_directory() -> Path:
    """`$SEAL_CACHE`, or `seal` in the platform's cache directory of this user.

    It need not exist. Raises PreconditionFailed if it is in a home and this user has none.
    """
    try:
        if chosen := os.environ.get("SEAL_CACHE"):
            return Path(chosen).expanduser().absolute()
        return user_cache_path("seal", appauthor=False)
    except RuntimeError as error:
        raise PreconditionFailed("this user has no home directory", remedy=CACHE_REMEDY) from error


def given_path(text: str, *, field: str) -> Path:
    """The absolute path that somebody means by `~/runs` or `../runs`.

    Raises NotFound with the field for the home of a user that there is not.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise NotFound(
            f"{text} does not exist: there is no such user", field=field, remedy="check the path"
        ) from error
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


@contextmanager
def file_errors(path: Path | str, *, denied: str = ACCESS_REMEDY) -> Iterator[None]:
    """Turn an OSError about `path` into the error that says what to do.

    Exhausted (disk full), Transient (the volume is away), NotFound, InvalidInput, or
    PreconditionFailed with the remedy `denied` if this user may not use it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(
                f"no space left to write {path}",
                remedy="free space on that disk or volume, then try again",
                retry_after_seconds=DISK_RETRY_SECONDS,
                path=str(path),
            ) from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(
                f"{path} does not exist", remedy="check the path", path=str(path)
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise PreconditionFailed(
                f"no permission for {path}",
                remedy=denied,
                path=str(path),
            ) from error
        if error.errno in _AWAY or isinstance(error, TimeoutError | ConnectionError):
            raise Transient(
                f"{path} cannot be reached: {error.strerror or type(error).__name__}",
                remedy="try again later; if it stays so, look at the disk or the volume's server",
                path=str(path),
            ) from error
        if error.errno in _UNUSABLE:
            raise InvalidInput(
                f"{path} cannot be used as a file: {error.strerror}",
                remedy="give another path",
                path=str(path),
            ) from error
        raise


def read_bounded(path: Path, max_bytes: int, *, field: str) -> bytes:
    """The bytes of a file, which may be a pipe or a device without an end of its own.

    Raises what `file_errors` does, and InvalidInput if there are more bytes, both with the field.
    """
    try:
        with file_errors(path), path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except SealError as error:
        error.field = field
        raise
    if len(content) > max_bytes:
        raise InvalidInput(
            f"{path} has too many bytes, the limit is {max_bytes}",
            field=field,
            remedy="cut it into several",
        )
    return content


def temporary_sibling(path: Path) -> Path:
    """A fresh `.tmp-` name beside `path`."""
    return path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name[:64]}"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durably.

    Raises Exhausted if the disk is full; then nothing has changed.
    """
    with _whole(path, content) as temporary:
        temporary.replace(path)


def create_atomically(path: Path, content: bytes) -> bool:
    """Create `path` with this content, durably, unless something is there; tell whether it did.

    Raises Exhausted if the disk is full (then nothing has changed), PreconditionFailed on a file
    system without hard links: nothing else creates a whole file only where there is none.
    """
    if not content:
        return _mark(path)
    with _whole(path, content) as temporary:
        return _link(temporary, path)


def _mark(path: Path) -> bool:
    """Create an empty file, which is whole from the start."""
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        created = True
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            created = False
        flush_directory(path.parent)  # another's that is there may not be durable yet
    return created


@contextmanager
def _whole(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` that has all of the content on the disk, to be given that name."""
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                flush(file)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        # Last: what is durable is the name that the block gave, and that the other is gone
        flush_directory(path.parent)


def _link(temporary: Path, path: Path) -> bool:
    """Give a file its second name unless that is taken."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        # NFS repeats a request whose reply was lost, and the repeat finds the first one's link:
        # what counts is the number of names that the file has now
        if temporary.stat().st_nlink == 2:
            return True
        if error.errno == errno.EEXIST:
            return False
        if error.errno in _NO_LINKS:
            raise PreconditionFailed(
                f"the file system of {path.parent} has no hard links, which write-once files need",
                remedy="use a volume with hard links (a local disk, NFS, CephFS), or s3:// or gs://",
                path=str(path),
            ) from error
        raise
    return True


def copy_durably(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file to a new name, flushed to the disk.

    Returns sha256 and size of what was written.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        flush(writer)
    return digest.hexdigest(), size


def sha256_of_file(path: Path, *, on_progress: Callable[[int], None] | None = None) -> str:
    """sha256 of a file, lower-case hex; `on_progress` gets the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done)
    return digest.hexdigest()


def flush(file: IO[bytes]) -> None:
    """Force a file's content to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Force a directory's entries (creations, renames) to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def install_directory(temporary: Path, final: Path, *, adopt: Callable[[Path], bool]) -> bool:
    """Rename a complete temporary directory to its final name; tell whether it has that name now.

    One that is there already stays if `adopt` says so (False), else it is replaced.
    """
    flush_directory(temporary)
    while True:
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            flush_directory(final.parent)
            return True
        if adopt(final):
            return False
        aside = temporary_sibling(final)
        with suppress(FileNotFoundError):  # somebody else has moved it away
            final.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(directory: Path, *, older_than_seconds: float) -> int:
    """Delete `.tmp-` entries that a killed process left in `directory`; returns their number.

    Young ones may still be in use.
    """
    removed = 0
    for entry in directory.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            if time.time() - entry.lstat().st_mtime < older_than_seconds:
                continue
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
            continue  # somebody else tidied up, or writes there still
        removed += 1
    return removed


@contextmanager
def exclusive(
    lock_file: Path,
    *,
    on_wait: Callable[[], None] | None = None,
    denied: str = ACCESS_REMEDY,
) -> Iterator[None]:
    """Hold a lock between processes for the length of the block.

    The kernel frees it when its holder dies, however it dies. `denied` is what to do if this user
    may not write it.
    """
    lock = FileLock(lock_file)
    with file_errors(lock_file, denied=denied):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
