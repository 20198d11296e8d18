"""A bucket as a place for bytes: puts that appear whole, and puts on the condition of absence.

The manifest of a directory is put last, and readers ask for it first. The drivers are fsspec's, and
they read what other programs of their kind read: for S3 the variables AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE,
or the machine's role.
"""

from __future__ import annotations

import errno
import importlib
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seal.copies import LocalCopies
from seal.errors import (
    AccessDenied,
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)
from seal.files import CACHE_REMEDY, DISK_RETRY_SECONDS, file_errors
from seal.manifest import (
    DAMAGED_REMEDY,
    MANIFEST_FILE,
    Manifest,
    manifest_of,
    read_manifest,
)

CACHED_BYTES = 4 * 2**30
"""Of local copies: a dozen adapters of rank 64 of a model of 7B, hundreds of small ones. What is in
use stays beside them."""
_CONFLICT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
_MEMORY = threading.RLock()
"""fsspec's memory is shared by all threads and safe for none."""
_DRIVER_ERRORS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        # aiohttp's of a reply that was cut off, once for each of the driver's tries
        "s3": (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")),
        "gs": (
            ("gcsfs.retry", "HttpError"),
            ("google.auth.exceptions", "GoogleAuthError"),
            ("aiohttp", "ClientError"),
        ),
    }
)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
_EXPIRED = ("ExpiredToken", "RequestExpired", "RequestTimeTooSkewed", "TokenRefreshRequired")
_RETRIED_STATUS = (408, 409, 425, 429)
CREDENTIALS: Mapping[str, str] = MappingProxyType(
    {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, or a role)",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS (or a service account)",
    }
)
"""Where a scheme's driver takes credentials from."""

_EXTRAS: Mapping[str, str] = MappingProxyType({"s3": "s3", "gs": "gcs"})
"""The extra of this package that brings the driver of a scheme."""


class ObjectStorage:
    """A bucket, or fsspec's in-memory file system.

    Fetched directories are kept in a local cache, the least recently used leave first.
    """

    def __init__(
        self, scheme: str, root: str, *, cache: Path, cached_bytes: int = CACHED_BYTES
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
                remedy=f"pip install 'seal-kubernetes[{extra}]' (in a checkout: pip install -e "
                f"'.[{extra}]')"
                if (extra := _EXTRAS.get(scheme))
                else "install the package that it names",
            ) from error
        self._scheme, self._root = scheme, root
        self._copies = LocalCopies(cache, capacity_bytes=cached_bytes)
        self._driver_errors: tuple[type[Exception], ...] = (OSError, *_driver_errors(scheme))
        self._turn: AbstractContextManager[Any] = _MEMORY if scheme == "memory" else nullcontext()

    def check_place(self) -> None:
        """A bucket shows what it allows only when it is used."""

    def make_place(self) -> None:
        """Buckets are made by their owners."""

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

    def create(self, path: str, content: bytes) -> bool:
        """Put one object on the condition that there is none."""
        for wait_seconds in (*_CONFLICT_WAITS_SECONDS, 0.0):
            with self._errors(path):
                try:
                    self._fs.pipe_file(self._key(path), content, mode="create")
                except FileExistsError:
                    return False
                except self._driver_errors as error:
                    status = http_status(error)
                    if status == HTTPStatus.PRECONDITION_FAILED:
                        return False
                    # The store saw several puts at once and let none of them through
                    if status != HTTPStatus.CONFLICT:
                        raise
                else:
                    return True
            # Jitter: those who met once would meet again
            time.sleep(wait_seconds * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
        raise Transient(
            f"{self.uri(path)} is being created by others all the time", remedy="try again later"
        )

    def exists(self, path: str) -> bool:
        """Tell whether there is an object of this name."""
        # Not fsspec's isfile, which takes every error for an absent file
        try:
            with self._errors(path):
                return bool(self._fs.info(self._key(path))["type"] == "file")
        except NotFound:
            return False

    def age_seconds(self, path: str) -> float:
        """By the time of its last put."""
        with self._errors(path):
            written: datetime = self._fs.modified(self._key(path))
        return time.time() - written.timestamp()

    def size_bytes(self, path: str) -> int:
        """As the store has it; the object itself stays there."""
        with self._errors(path):
            return int(self._fs.info(self._key(path))["size"])

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

    @contextmanager
    def fetch(self, path: str, sha256: str) -> Iterator[Path]:
        """Download into the cache unless an intact copy is there; hands out the copy."""
        manifest = self._manifest(path, sha256)
        with self._copies.held(
            manifest, lambda target: self._download(path, manifest, target), where=self.uri(path)
        ) as copy:
            yield copy

    def _manifest(self, path: str, sha256: str) -> Manifest:
        return read_manifest(
            lambda: self.read(f"{path}/{MANIFEST_FILE}"), uri=self.uri(path), sha256=sha256
        )

    def remove_directory(self, path: str) -> None:
        """Delete the manifest, so that nobody begins to read, then the rest."""
        self.remove(f"{path}/{MANIFEST_FILE}")
        for name in self.list(path):
            self.remove(name)

    def bytes_under(self, prefix: str) -> int:
        """Sum of the sizes in the listing."""
        return sum(self._sizes(prefix).values())

    def remove_leftovers(self, prefix: str, *, older_than_seconds: float) -> int:
        """Nothing to do: puts appear whole.

        A directory without a manifest is filled up by the next attempt at its digest.
        """
        return 0

    def remove_empty_directories(self, prefix: str) -> None:
        """Nothing to do: a bucket has objects alone."""

    def _check_sizes(self, path: str, manifest: Manifest) -> None:
        """Refuse a tampered directory before downloading it."""
        sizes = self._sizes(path)
        for name, entry in manifest.files.items():
            if sizes.get(f"{path}/{name}") != entry.bytes:
                raise Internal(
                    f"{self.uri(path)}/{name} is missing or not {entry.bytes} bytes long",
                    remedy=DAMAGED_REMEDY,
                )
        for extra in sorted(
            set(sizes) - {f"{path}/{name}" for name in (*manifest.files, MANIFEST_FILE)}
        ):
            raise Internal(f"{self.uri(extra)} is not in the manifest", remedy=DAMAGED_REMEDY)

    def _download(self, path: str, manifest: Manifest, target: Path) -> None:
        try:
            self._check_sizes(path, manifest)
        except Internal:
            self._manifest(path, manifest.sha256)  # what was removed meanwhile is not damaged
            raise
        for name in manifest.files:
            with self._errors(f"{path}/{name}", local=target):
                self._fs.get_file(self._key(f"{path}/{name}"), str(target / name))

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
    def _errors(self, path: str, *, local: Path | None = None) -> Iterator[None]:
        """Turn what the driver gives up on, after retries of its own, into an error of SEAL.

        `local`: a directory of this machine that the block writes to.
        """
        with self._turn:
            try:
                yield
            except self._driver_errors as error:
                if local and http_status(error) is None and _is_of_disk(error):
                    with file_errors(local, denied=CACHE_REMEDY):
                        raise
                raise _classified(error, scheme=self._scheme, where=self.uri(path)) from error


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EROFS,
    )


def http_status(error: BaseException) -> int | None:
    """HTTP status that a driver's error tells of; None if no reply came.

    s3fs raises an OSError from botocore's error, gcsfs an HttpError with a code.
    """
    code = getattr(error, "code", None)
    if code is None:
        response = getattr(error.__cause__, "response", None) or {}
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(code) if str(code).isdecimal() else None


def _classified(error: Exception, *, scheme: str, where: str) -> SealError:
    """What a driver's error means for the caller."""
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    status = http_status(error)
    said = code or str(status or type(error).__name__)
    if isinstance(error, FileNotFoundError):
        if code == "NoSuchBucket":
            return NotFound(
                f"the bucket of {where} does not exist", remedy="check its name, or create it"
            )
        return NotFound(f"{where} does not exist", remedy="check the path", path=where)
    if isinstance(error, TimeoutError | ConnectionError):
        return Transient(f"{where} cannot be reached: {said}", remedy="try again later")
    if code in _EXPIRED:
        return Transient(
            f"{where}: the credentials are out of date, or this machine's clock is wrong ({said})",
            remedy="renew the credentials or set the clock, then try again",
        )
    if (
        type(error).__name__ in _NO_CREDENTIALS
        or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        or str(error).startswith("Forbidden")  # gcsfs has nothing else to tell it by
    ):
        return AccessDenied(
            f"{where}: access was denied ({said})",
            remedy=f"set {CREDENTIALS[scheme]} to credentials that may list, read, write and "
            "delete in this bucket"
            if scheme in CREDENTIALS
            else "give this user access to it",
        )
    if status == HTTPStatus.INSUFFICIENT_STORAGE:
        return Exhausted(
            f"no space left to write {where}",
            remedy="free space in that store, then try again",
            retry_after_seconds=DISK_RETRY_SECONDS,
        )
    if status and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _RETRIED_STATUS:
        return InvalidInput(
            f"{where}: the store refused the request ({said}): {error}"[:500],
            remedy="check the bucket, its region and the endpoint (AWS_REGION, AWS_ENDPOINT_URL)"
            if scheme == "s3"
            else "check the bucket's name",
        )
    return Transient(f"{where} cannot be reached: {said}", remedy="try again later")


def _driver_errors(scheme: str) -> tuple[type[Exception], ...]:
    """What a driver raises beside OSError; the drivers are optional."""
    return tuple(
        getattr(importlib.import_module(module), name)
        for module, name in _DRIVER_ERRORS.get(scheme, ())
    )
