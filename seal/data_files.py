"""A file of data: where it lies, and its text.

    train.json, file:///data/train.json    a file of this machine or of a mounted volume
    s3://bucket/train.json, gs://...       an object, by the artifact store's drivers and variables
    corpus://train                         a part of the embedded corpus

Nothing else is read. Who names the data of a run need not be who owns the process that reads them,
which would fetch for the other whatever it can reach. What a URI carries beside its address may be
a secret: such a URI is refused, and no message shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote, urlsplit

from seal.artifacts import ArtifactStore
from seal.errors import AccessDenied, InvalidInput, NotFound
from seal.files import file_errors
from seal.limits import MAX_DATA_BYTES
from seal.object_storage import CREDENTIALS

CORPORA = ("train", "validation", "retained", "arc-train", "arc-validation")

Scheme = Literal["file", "corpus", "s3", "gs"]
_OBJECT_SCHEMES: Mapping[str, Literal["s3", "gs"]] = MappingProxyType({"s3": "s3", "gs": "gs"})
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNSAFE_KEY = re.compile(r"[\x00-\x1f\x7f\\?#\ud800-\udfff]")
_MAY_BE_SECRET = re.compile("[@?#]")
"""What follows, or stands before, in a URI: a user with a password, a query with a signature."""


@dataclass(frozen=True)
class DataFile:
    """Where a file of data lies; `data_file` reads it from what somebody wrote."""

    scheme: Scheme
    path: str
    """Of an object bucket and key, of a part of the corpus its name."""

    def __str__(self) -> str:
        """For messages."""
        return self.path if self.scheme == "file" else f"{self.scheme}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    def beside(self, name: str) -> DataFile:
        """The file of another name in the same directory."""
        return DataFile(self.scheme, str(PurePosixPath(self.path).with_name(name)))

    def read_text(self) -> str:
        """The whole of it, which has to be UTF-8.

        Raises:
            InvalidInput: it is larger than `MAX_DATA_BYTES`, is not UTF-8, or the bucket lets these
                credentials not read it.
            NotFound: there is no such file, object or bucket.
            PreconditionFailed: this user may not read the file, or the bucket's driver is missing.
            Transient: the volume or the bucket is away.
        """
        try:
            return self._read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{self} is not UTF-8 at byte {error.start}",
                remedy="save it as UTF-8",
                source=str(self),
            ) from error

    def _read_bytes(self) -> bytes:
        if self.scheme == "corpus":
            return resources.files("seal").joinpath("corpus", f"{self.path}.jsonl").read_bytes()
        if self.scheme == "file":
            with file_errors(self.path):
                self._check_size(Path(self.path).stat().st_size)
                return Path(self.path).read_bytes()
        return self._read_object(self.scheme)

    def _read_object(self, scheme: Literal["s3", "gs"]) -> bytes:
        bucket, _, key = self.path.partition("/")
        try:
            store = ArtifactStore(f"{scheme}://{bucket}")
            self._check_size(store.size_bytes(key))
            return store.read_bytes(key)
        except AccessDenied as error:
            # A plain InvalidInput: of the run's own store it may be a key that was just changed,
            # which another attempt mends, but this bucket may be anybody's
            raise InvalidInput(
                error.message,
                remedy=f"data are read with the credentials of the artifact store: let them list "
                f"and read there, or set {CREDENTIALS[scheme]} to some that may",
                source=str(self),
            ) from error

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > MAX_DATA_BYTES:
            raise InvalidInput(
                f"{self} has {size_bytes} bytes, at most {MAX_DATA_BYTES} are read",
                remedy="leave rows out: a file of data is in memory as a whole",
                source=str(self),
            )


def data_file(source: str) -> DataFile:
    """The file that a path or a URI names; it need not be there.

    Raises InvalidInput for what is no address of one, NotFound for a corpus that there is not.
    """
    scheme, separator, rest = source.partition("://")
    if not separator:
        if not source.strip():
            raise InvalidInput("no dataset is named", remedy="give a path, or corpus://train")
        return DataFile("file", source)
    scheme = scheme.lower()
    if scheme == "corpus":
        return DataFile("corpus", _known_corpus(rest))
    if scheme in _OBJECT_SCHEMES:
        return DataFile(_OBJECT_SCHEMES[scheme], _object_path(source, rest))
    if scheme != "file":
        raise _unread(source)
    try:
        parts = urlsplit(source)
    except ValueError:  # what stands in brackets is no address
        raise _unread(source) from None
    if parts.netloc not in ("", "localhost"):
        raise _unread(source)
    return DataFile("file", unquote(parts.path))


def _known_corpus(name: str) -> str:
    if name not in CORPORA:
        raise NotFound(
            f"there is no corpus {name[:60]!r}",
            remedy="use one of: " + ", ".join(f"corpus://{known}" for known in CORPORA),
        )
    return name


def _object_path(source: str, path: str) -> str:
    """Bucket and key, as they are: keys are not percent-encoded."""
    bucket, _, key = path.partition("/")
    if (
        not _BUCKET.fullmatch(bucket)
        or _UNSAFE_KEY.search(key)
        or not {"", ".", ".."}.isdisjoint(key.split("/"))
    ):
        scheme = source.partition("://")[0]
        raise InvalidInput(
            f"{_shown(source)} names no object of a bucket",
            remedy=f"write {scheme}://bucket/path/train.json; credentials are no part of it, they "
            "come from the environment",
            source=_shown(source),
        )
    return path


def _unread(source: str) -> InvalidInput:
    return InvalidInput(
        f"{_shown(source)} cannot be read: it is neither a file nor an object of S3 or Google "
        "Cloud Storage",
        remedy="give a path, file:///path, s3://bucket/key, gs://bucket/key or corpus://NAME",
        source=_shown(source),
    )


def _shown(source: str) -> str:
    """A refused URI for a message, or its scheme alone."""
    return f"{source.partition('://')[0]}://…" if _MAY_BE_SECRET.search(source) else source
