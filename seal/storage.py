"""Two places where bytes are kept under relative paths: a directory and an object store.

The directory is of this machine or a mounted volume. They differ in what is atomic. A directory has
rename; an object store has single puts that appear whole, so there the manifest of a directory is
put last and readers ask for it first. Both give the promise of `seal.artifacts`: all or nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from seal.errors import Internal, InvalidInput, NotFound, PreconditionFailed, SealError, Transient
from seal.files import (
    TEMPORARY_PREFIX,
    file_errors,
    install_directory,
    remove_leftovers,
    temporary_sibling,
    write_atomically,
)
from seal.manifest import (
    MANIFEST_FILE,
    Manifest,
    manifest_of,
    parse_manifest,
    verify_directory,
    write_directory,
)

_REMEDY = "delete that directory and publish or train it again"
_DRIVER_ERRORS = MappingProxyType(
    {"s3": ("botocore.exceptions", "BotoCoreError"), "gs": ("gcsfs.retry", "HttpError")}
)


class Storage(Protocol):
    """Bytes by relative path; every path has been checked by the caller."""

    def uri(self, path: str) -> str:
        """Full URI of a path."""

    def read(self, path: str) -> bytes:
        """Content. Raises NotFound."""

    def write(self, path: str, content: bytes) -> None:
        """Create or replace, whole or not at all. Raises Exhausted if the disk is full."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this name."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""

    def list(self, prefix: str) -> tuple[str, ...]:
        """Paths of all files beneath a prefix, sorted; empty if there is none."""

    def publish(self, source: Path, names: tuple[str, ...], prefix: str) -> str:
        """Put the named files under `{prefix}/{sha256 of their manifest}`, the manifest last.

        Returns the sha256.
        """

    def fetch(self, path: str, sha256: str) -> Path:
        """Local, verified directory of what `publish` put at `path`."""

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Delete what killed writers left beneath a prefix; returns the number of entries."""


class LocalStorage:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

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

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this name."""
        return self._locate(path).is_file()

    def remove(self, path: str) -> None:
        """Unlink a file below the root."""
        with file_errors(self.uri(path)):
            self._locate(path).unlink(missing_ok=True)

    def list(self, prefix: str) -> tuple[str, ...]:
        """Walk the tree below a prefix, unfinished entries left out."""
        found: list[str] = []
        for directory, children, names in os.walk(self._locate(prefix)):
            children[:] = [child for child in children if not child.startswith(TEMPORARY_PREFIX)]
            here = Path(directory).relative_to(self._locate(""))
            found += [
                (here / name).as_posix() for name in names if not name.startswith(TEMPORARY_PREFIX)
            ]
        return tuple(sorted(found))

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
                    adopt=lambda final: _is_intact(final, manifest),
                )
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return manifest.sha256

    def fetch(self, path: str, sha256: str) -> Path:
        """Verify the published directory itself and return it."""
        directory = self._locate(path)
        content = _manifest_content(
            lambda: (directory / MANIFEST_FILE).read_bytes(), uri=self.uri(path), sha256=sha256
        )
        verify_directory(
            directory,
            parse_manifest(content, where=f"{self.uri(path)}/{MANIFEST_FILE}"),
            remedy=_REMEDY,
        )
        return directory

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Delete old `.tmp-` entries below a prefix."""
        removed = 0
        for directory, children, _ in os.walk(self._locate(prefix)):
            children[:] = [child for child in children if not child.startswith(TEMPORARY_PREFIX)]
            removed += remove_leftovers(Path(directory), older_than_seconds=older_than_seconds)
        return removed

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


class ObjectStorage:
    """A bucket, or fsspec's in-memory file system.

    Fetched directories are kept in a local cache, the least recently used leave first.
    """

    def __init__(
        self, scheme: str, root: str, *, cache: Path, cached_directories: int = 64
    ) -> None:
        """`root`: bucket and prefix.

        Raises PreconditionFailed if the driver of `scheme` is not installed.
        """
        # Here, because most processes need no object store and its import is not free
        import fsspec

        try:
            self._fs: Any = fsspec.filesystem(scheme, use_listings_cache=False)
        except ImportError as error:
            raise PreconditionFailed(
                f"no driver for {scheme}:// URIs: {error}",
                remedy="install the package that it names",
            ) from error
        self._scheme, self._root, self._cache, self._cached = (
            scheme,
            root,
            cache,
            cached_directories,
        )
        self._unreachable: tuple[type[Exception], ...] = (OSError, *_driver_errors(scheme))

    def uri(self, path: str) -> str:
        """URI with the scheme of the store."""
        return f"{self._scheme}://{self._key(path)}".rstrip("/")

    def read(self, path: str) -> bytes:
        """Content of an object."""
        with self._errors(path):
            return bytes(self._fs.cat_file(self._key(path)))

    def write(self, path: str, content: bytes) -> None:
        """Put one object."""
        with self._errors(path):
            self._fs.pipe_file(self._key(path), content)

    def exists(self, path: str) -> bool:
        """Tell whether there is an object of this name."""
        with self._errors(path):
            return bool(self._fs.isfile(self._key(path)))

    def remove(self, path: str) -> None:
        """Delete one object."""
        with self._errors(path), suppress(FileNotFoundError):
            self._fs.rm_file(self._key(path))

    def list(self, prefix: str) -> tuple[str, ...]:
        """List all objects below a prefix."""
        return tuple(sorted(self._sizes(prefix)))

    def publish(self, source: Path, names: tuple[str, ...], prefix: str) -> str:
        """Put the files, then the manifest; nothing if all are there already."""
        manifest = manifest_of(source, names)
        path = f"{prefix}/{manifest.sha256}"
        expected = {f"{path}/{name}": entry.bytes for name, entry in manifest.files.items()}
        if self._sizes(path) == {**expected, f"{path}/{MANIFEST_FILE}": len(manifest.to_bytes())}:
            return manifest.sha256
        for name in names:
            with self._errors(f"{path}/{name}"):
                self._fs.put_file(str(source / name), self._key(f"{path}/{name}"))
        self.write(f"{path}/{MANIFEST_FILE}", manifest.to_bytes())
        return manifest.sha256

    def fetch(self, path: str, sha256: str) -> Path:
        """Download into the cache unless an intact copy is there; returns the copy."""
        local = self._cache / sha256
        content = _manifest_content(
            lambda: self.read(f"{path}/{MANIFEST_FILE}"), uri=self.uri(path), sha256=sha256
        )
        manifest = parse_manifest(content, where=f"{self.uri(path)}/{MANIFEST_FILE}")
        if not _is_intact(local, manifest):
            self._check_sizes(path, manifest)
            self._download(path, manifest, local)
        os.utime(local)
        self._evict()
        return local

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Nothing to do: puts appear whole.

        A directory without a manifest is filled up by the next attempt at its digest.
        """
        return 0

    def _check_sizes(self, path: str, manifest: Manifest) -> None:
        """Refuse a tampered directory before downloading it."""
        sizes = self._sizes(path)
        for name, entry in manifest.files.items():
            if sizes.get(f"{path}/{name}") != entry.bytes:
                raise Internal(
                    f"{self.uri(path)}/{name} is missing or not {entry.bytes} bytes long",
                    remedy=_REMEDY,
                )
        for extra in sorted(
            set(sizes) - {f"{path}/{name}" for name in (*manifest.files, MANIFEST_FILE)}
        ):
            raise Internal(f"{self.uri(extra)} is not in the manifest", remedy=_REMEDY)

    def _download(self, path: str, manifest: Manifest, local: Path) -> None:
        temporary = temporary_sibling(local)
        with file_errors(local):
            temporary.mkdir(parents=True)
        try:
            for name in manifest.files:
                with self._errors(f"{path}/{name}", local=True):
                    self._fs.get_file(self._key(f"{path}/{name}"), str(temporary / name))
            with file_errors(local):
                (temporary / MANIFEST_FILE).write_bytes(manifest.to_bytes())
                verify_directory(temporary, manifest, remedy=_REMEDY, where=self.uri(path))
                install_directory(temporary, local, adopt=lambda final: _is_intact(final, manifest))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _evict(self) -> None:
        kept = sorted(
            (entry for entry in self._cache.iterdir() if len(entry.name) == 64),
            key=lambda entry: -entry.stat().st_mtime,
        )
        for entry in kept[self._cached :]:
            shutil.rmtree(entry, ignore_errors=True)

    def _sizes(self, prefix: str) -> Mapping[str, int]:
        """Bytes by path of all objects beneath a prefix."""
        start = len(self._key("").lstrip("/"))
        with self._errors(prefix):
            found: Mapping[str, Mapping[str, Any]] = self._fs.find(self._key(prefix), detail=True)
        return {
            name.lstrip("/")[start:].lstrip("/"): int(info["size"]) for name, info in found.items()
        }

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    @contextmanager
    def _errors(self, path: str, *, local: bool = False) -> Iterator[None]:
        """The driver retries by itself; what it gives up on is Transient here."""
        try:
            with file_errors(f"{self.uri(path)} or its local copy" if local else self.uri(path)):
                yield
        except self._unreachable as error:
            raise Transient(
                f"{self.uri(path)} cannot be reached: {type(error).__name__}",
                remedy="try again later",
            ) from error


def _driver_errors(scheme: str) -> tuple[type[Exception], ...]:
    """What a driver raises beside OSError; the drivers are optional."""
    if scheme not in _DRIVER_ERRORS:
        return ()
    module, name = _DRIVER_ERRORS[scheme]
    error: type[Exception] = getattr(importlib.import_module(module), name)
    return (error,)


def _manifest_content(read: Callable[[], bytes], *, uri: str, sha256: str) -> bytes:
    """Bytes of a manifest, checked against the digest that the caller asks for."""
    try:
        content = read()
    except (FileNotFoundError, NotADirectoryError, NotFound) as error:
        raise NotFound(
            f"{uri} is not published: it has no {MANIFEST_FILE}",
            remedy="check the reference, or train it again",
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Internal(
            f"{uri}/{MANIFEST_FILE} has been altered: its sha256 is not the one asked for",
            remedy=_REMEDY,
        )
    return content


def _is_intact(directory: Path, manifest: Manifest) -> bool:
    """Tell whether a local directory holds exactly this manifest and its files."""
    try:
        if (directory / MANIFEST_FILE).read_bytes() != manifest.to_bytes():
            return False
        verify_directory(directory, manifest, remedy=_REMEDY)
    except (OSError, SealError):
        return False
    return True
