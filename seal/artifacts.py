"""The artifact store.

Everything that outlives a process, under one root URI (`file://`, `s3://`, `gs://`, `memory://`).
Single files are written whole or not at all; what must not change once it is there is created: of
many writers at once one counts, and all of them get its content back.

A directory, for example an adapter, is published under the sha256 of its manifest, so its address
says what is in it: publishing it twice is one artifact, a reader checks every byte against the
address, and nothing that is addressed ever changes. All calls block; in async code use
`asyncio.to_thread`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ValidationError

from seal.errors import Internal, InvalidInput, NotFound, PreconditionFailed, Transient
from seal.files import TEMPORARY_PREFIX, cache_directory, given_path
from seal.manifest import check_file_names
from seal.object_storage import ObjectStorage
from seal.records import AdapterReference
from seal.storage import LocalStorage, Storage

SCHEMES = ("file", "s3", "gs", "memory")
"""URI schemes that are allowed; anything else, chained ones included, is refused."""
PUBLISHED_SUFFIXES = (".safetensors", ".json", ".txt", ".jsonl", ".yaml", ".md")
"""Kinds of files that a published directory may hold: no code, no pickle, no archives."""

CREATE_ATTEMPTS = 10
"""How often what was there, and was deleted before it could be read, is created after all."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")

Model = TypeVar("Model", bound=BaseModel)


class ArtifactStore:
    """Files and content-addressed directories below one root.

    Paths are relative, with `/`; thread-safe.
    """

    def __init__(self, root_uri: str, *, cache_dir: Path | None = None) -> None:
        """`root_uri`: a URI or a local path; it need not exist yet.

        `cache_dir`: where copies from object stores go (default: user cache). Raises InvalidInput
        for a scheme that is not allowed or a root that is none, NotFound for the home of nobody,
        PreconditionFailed if the scheme's driver is missing.
        """
        scheme, path = _parse_uri(
            root_uri if "://" in root_uri else given_path(root_uri, field="root_uri").as_uri(),
            field="root_uri",
        )
        self._storage: Storage
        if scheme == "file":
            self._storage = LocalStorage(Path(path))
        else:
            self._storage = ObjectStorage(
                scheme, path, cache=(cache_dir or cache_directory()) / "adapters"
            )

    def check_place(self) -> None:
        """Refuse a root that can be seen to be unusable; nothing is written.

        Raises InvalidInput naming the root that is a file or that this user may not write.
        """
        self._storage.check_place()

    def check(self) -> None:
        """Prove that files can be created, read and deleted here, and are never created twice.

        For the start of what will cost something. Raises PreconditionFailed if the store replaces
        what it should only create, as some that speak S3 do, InvalidInput as `check_place`, and
        what all other calls raise.
        """
        self._storage.make_place()
        path = f"probe-{secrets.token_hex(8)}"
        try:
            # Whatever the first says: False is also the answer where its own reply was lost
            self._storage.create(path, b"first")
            if self._storage.create(path, b"second") or self._storage.read(path) != b"first":
                raise PreconditionFailed(
                    f"{self.root_uri} replaces files that exist where it is asked to create them",
                    remedy="use a store with conditional puts (If-None-Match), or a volume",
                )
        finally:
            self._storage.remove(path)

    @property
    def root_uri(self) -> str:
        """The root as a URI, without a slash at its end."""
        return self._storage.uri("")

    def uri(self, path: str) -> str:
        """Full URI of a path in the store."""
        return self._storage.uri(_checked(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Create or replace a file, durably.

        Raises Exhausted naming the path if the disk is full; then nothing has changed.
        """
        self._storage.write(_checked(path), content)

    def create_bytes(self, path: str, content: bytes) -> bytes:
        """Write a file, durably, unless one is there; returns what is there in either case.

        Of many writers, on any machine, one counts, and all get the same answer. Raises like
        `write_bytes`, and PreconditionFailed where the file system has no hard links.
        """
        for _ in range(CREATE_ATTEMPTS):
            if self._storage.create(_checked(path), content):
                return content
            try:
                return self._storage.read(path)
            except NotFound:
                continue  # deleted meanwhile, as a claim is that is given up
        raise Transient(
            f"{self.uri(path)} is being created and deleted by others all the time",
            remedy="try again later",
        )

    def read_bytes(self, path: str) -> bytes:
        """Content of a file. Raises NotFound naming its URI."""
        return self._storage.read(_checked(path))

    def write_json(self, path: str, model: BaseModel) -> None:
        """Write a model as JSON, like `write_bytes`."""
        self.write_bytes(path, _json(model))

    def create_json(self, path: str, model: Model) -> Model:
        """Write a model as JSON unless one is there; returns the one that counts.

        Raises like `create_bytes` and `read_json`.
        """
        own = _json(model)
        counted = self.create_bytes(path, own)
        return model if counted == own else self._parsed(path, counted, type(model))

    def read_json(self, path: str, kind: type[Model]) -> Model:
        """Read a model.

        Raises NotFound, or Internal naming file and field if it does not hold such a model.
        """
        return self._parsed(path, self.read_bytes(path), kind)

    def find_json(self, path: str, kind: type[Model]) -> Model | None:
        """Read a model that need not be there; None if it is not. Raises Internal as `read_json`.

        In one request: between a look and a read the file could go.
        """
        try:
            content = self.read_bytes(path)
        except NotFound:
            return None
        return self._parsed(path, content, kind)

    def parsed_lines(
        self, path: str, content: bytes, kind: type[Model], *, written_by: str = ""
    ) -> tuple[Model, ...]:
        """The models that a shard's file of one in each line holds, whose digest is known.

        `written_by`: the version of the program that wrote it, where that is known.

        Raises Internal naming file, line and field if one is no such model: what is whole and does
        not fit was written by another version.
        """
        by = f" ({written_by})" if written_by else ""
        remedy = (
            f"it was written by another version of this program{by}: use that one for the run, or "
            "begin another run"
        )
        return tuple(
            self._parsed(path, line, kind, where=f", line {number},", remedy=remedy)
            for number, line in enumerate(content.splitlines(), 1)
        )

    def _parsed(
        self,
        path: str,
        content: bytes,
        kind: type[Model],
        *,
        where: str = "",
        remedy: str = "it was truncated, edited or written by another version: use that one, or "
        "put a copy of the file back; what lies below stages/ may be deleted, and is made again",
    ) -> Model:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise Internal(
                f"{self.uri(path)}{where} holds no {kind.__name__}: {field or 'the file'}: "
                f"{first['msg']}",
                remedy=remedy,
                field=field,
            ) from error

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this name."""
        return self._storage.exists(_checked(path))

    def age_seconds(self, path: str) -> float:
        """Seconds since a file was written last, as the store's clock has it. Raises NotFound."""
        return self._storage.age_seconds(_checked(path))

    def size_bytes(self, path: str) -> int:
        """Length of a file, which is not read for it. Raises NotFound."""
        return self._storage.size_bytes(_checked(path))

    def remove(self, path: str) -> None:
        """Delete a single file, if it is there."""
        self._storage.remove(_checked(path))

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Paths of all files beneath a directory, sorted; unfinished ones are never among them.

        Empty if there is no such directory.
        """
        return self._storage.list(_checked(prefix) if prefix else "")

    def publish_directory(self, local_dir: Path, prefix: str) -> AdapterReference:
        """Copy a flat directory to `{root}/{prefix}/{sha256}`.

        One of the same content that is there already is adopted. Raises InvalidInput naming the
        entry that is a link, a directory or of a kind not in `PUBLISHED_SUFFIXES`; Exhausted if the
        disk is full. Whatever stops it, readers see nothing of an unfinished one.
        """
        checked = _checked(prefix)
        sha256 = self._storage.publish(
            local_dir, check_file_names(local_dir, allowed_suffixes=PUBLISHED_SUFFIXES), checked
        )
        return AdapterReference(path=f"{checked}/{sha256}", sha256=sha256)

    @contextmanager
    def fetch_directory(self, reference: AdapterReference) -> Iterator[Path]:
        """Local directory with the referenced files, every sha256 checked, while the block lasts.

        Do not write to it: for `file://` it is the published directory itself, else a copy that may
        leave the cache after the block.

        Raises InvalidInput if the path leads out of the root, NotFound if nothing was
        published there, Internal naming the file that is missing, extra, truncated or altered.
        """
        _check_digest(reference)
        with self._storage.fetch(_checked(reference.path), reference.sha256) as directory:
            yield directory

    def remove_directory(self, reference: AdapterReference) -> None:
        """Delete a published directory, if it is there; a reader sees all of it or nothing.

        A deletion that was interrupted is finished by the next. Raises InvalidInput if the path
        leads out of the root or is not the address of such a directory. Nobody may be publishing
        the same content under the same prefix.
        """
        _check_digest(reference)
        if reference.path.rpartition("/")[2] != reference.sha256:
            raise InvalidInput(
                f"{reference.path!r} is not the address of {reference.sha256}",
                field="path",
                remedy="give the reference unaltered",
            )
        self._storage.remove_directory(_checked(reference.path))

    def bytes_under(self, prefix: str = "") -> int:
        """Bytes of all finished files beneath a directory; 0 if there is no such directory."""
        return self._storage.bytes_under(_checked(prefix) if prefix else "")

    def remove_leftovers(self, prefix: str = "", *, older_than_seconds: float = 3600.0) -> int:
        """Delete unfinished files that killed writers left; returns their number.

        Younger ones may belong to a writer that is alive.
        """
        return self._storage.remove_leftovers(
            _checked(prefix) if prefix else "", older_than_seconds=older_than_seconds
        )

    def remove_empty_directories(self, prefix: str) -> None:
        """Delete a directory and all beneath it that hold no file: removing files leaves them.

        Nobody may be about to write there for the first time.
        """
        self._storage.remove_empty_directories(_checked(prefix))


def _check_digest(reference: AdapterReference) -> None:
    if not _SHA256.fullmatch(reference.sha256):
        raise InvalidInput(
            f"{reference.sha256[:80]!r} is no sha256 in hex",
            field="sha256",
            remedy="give the reference unaltered",
        )


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json().encode() + b"\n"


def _parse_uri(uri: str, *, field: str) -> tuple[str, str]:
    """Scheme and path (for object stores: bucket and key) of a URI.

    A `file` path is percent-decoded. Raises InvalidInput.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        allowed = ", ".join(f"{name}://" for name in SCHEMES)
        raise InvalidInput(
            f"{uri} has no allowed scheme", field=field, remedy=f"use one of {allowed}"
        )
    if scheme == "file":
        if not rest.startswith("/"):
            raise InvalidInput(
                f"{uri} names a host, not a path",
                field=field,
                remedy="write file:// and an absolute path: file:///data",
            )
        try:
            rest = unquote(rest, errors="strict")
        except UnicodeDecodeError as error:  # with other characters it would be another directory
            raise InvalidInput(
                f"{uri} is not UTF-8", field=field, remedy="give a directory whose path is UTF-8"
            ) from error
    elif "?" in rest or "#" in rest:
        raise InvalidInput(
            f"{uri} holds ? or #", field=field, remedy="give the plain URI of a directory"
        )
    path = rest.rstrip("/")
    if not path.strip("/"):
        raise InvalidInput(
            f"{uri} names no directory", field=field, remedy="add a directory or a bucket"
        )
    _check_parts(path.removeprefix("/"), shown=uri, field=field)
    return scheme, path


def _checked(path: str) -> str:
    """A relative path that stays below the root, as it was given."""
    if path.startswith("/") or "://" in path:
        raise InvalidInput(
            f"{path!r} is not relative", field="path", remedy="give a path below the artifact root"
        )
    _check_parts(path, shown=path, field="path")
    return path


def _check_parts(path: str, *, shown: str, field: str) -> None:
    if _UNSAFE.search(path):
        raise InvalidInput(
            f"{shown!r} holds a backslash or a control character",
            field=field,
            remedy="use plain characters and /",
        )
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise InvalidInput(
                f"{shown!r} holds an empty, . or .. part", field=field, remedy="give the plain path"
            )
        if part.startswith(TEMPORARY_PREFIX):
            raise InvalidInput(
                f"{shown!r} holds a reserved name",
                field=field,
                remedy=f"do not begin a name with {TEMPORARY_PREFIX}",
            )
