"""The manifest of a directory: name, size and sha256 of each of its files, as canonical JSON.

Its own sha256 addresses the directory. The same files give the same bytes and so the same address,
on every machine. A manifest is written last: a directory without one is not finished, and a file
that is not in it does not belong there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from seal.errors import Internal, InvalidInput, NotFound, SealError
from seal.files import copy_durably, flush, sha256_of_file
from seal.records import Record

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
"""A larger manifest is refused before it is parsed."""
DAMAGED_REMEDY = "delete that directory and publish or train it again"
"""What to do about a published directory that is not what its manifest says."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FileEntry(Record):
    """One file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of its content, lower-case hex."""
    bytes: Annotated[int, Field(ge=0)]
    """Size."""


class Manifest(Record):
    """All files of one directory, the manifest itself excepted."""

    files: dict[str, FileEntry]
    """By name; flat, no sub-directories."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, one line."""
        return (
            json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
            + b"\n"
        )

    @property
    def sha256(self) -> str:
        """Address of the directory."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_manifest(
    content: bytes, *, where: str, remedy: str = "publish the directory again"
) -> Manifest:
    """Read a manifest.

    Raises Internal naming `where` if it is too large, no manifest, or holds a name that is no plain
    file name.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise _broken(
            f"{where} has {len(content)} bytes, the limit is {MAX_MANIFEST_BYTES}", remedy=remedy
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _broken(f"{where} is no manifest", remedy=remedy) from error
    if manifest.to_bytes() != content:
        raise _broken(f"{where} has been altered: it is not in canonical form", remedy=remedy)
    for name in manifest.files:
        if not _FILE_NAME.fullmatch(name):
            raise _broken(f"{where} names {name!r}, which is no plain file name", remedy=remedy)
    return manifest


def read_manifest(read: Callable[[], bytes], *, uri: str, sha256: str) -> Manifest:
    """The manifest of a published directory, checked against the digest that the caller asks for.

    Raises NotFound if `read` finds none, Internal naming the manifest if it is another.
    """
    try:
        content = read()
    except (FileNotFoundError, NotADirectoryError, NotFound) as error:
        raise NotFound(
            f"{uri} is not published: it has no {MANIFEST_FILE}",
            remedy="check the reference, or train it again",
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _broken(
            f"{uri}/{MANIFEST_FILE} has been altered: its sha256 is not the one asked for",
            remedy=DAMAGED_REMEDY,
        )
    return parse_manifest(content, where=f"{uri}/{MANIFEST_FILE}")


def check_file_names(directory: Path, *, allowed_suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the files of a directory that is to be published, sorted.

    Raises InvalidInput naming the entry that is no plain file (a link, a directory) or of a kind
    not allowed, and for an empty directory.
    """
    if not directory.is_dir() or directory.is_symlink():
        raise InvalidInput(
            f"{directory} is no directory", remedy="give the directory that holds the files"
        )
    names = sorted(entry.name for entry in directory.iterdir())
    if not names:
        raise InvalidInput(
            f"{directory} is empty", remedy="write the files before publishing the directory"
        )
    for name in names:
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise InvalidInput(
                f"{path} is no plain file", remedy="publish a flat directory without links"
            )
        if name == MANIFEST_FILE or not _FILE_NAME.fullmatch(name):
            raise InvalidInput(
                f"{path} has a reserved or unusual name",
                remedy="use letters, digits, dot, dash and underscore",
            )
        if not name.endswith(allowed_suffixes):
            raise InvalidInput(
                f"{path} is of a kind that is never published",
                remedy="only " + ", ".join(allowed_suffixes) + " files are",
            )
    return tuple(names)


def verify_directory(
    directory: Path,
    manifest: Manifest,
    *,
    remedy: str,
    sha256: Callable[[Path], str] = sha256_of_file,
    where: str | None = None,
) -> None:
    """Check that a local directory holds exactly what its manifest says, content included.

    Raises Internal naming the first file that is missing, extra, a link, of another size or of
    another digest. `sha256`: how a file is hashed, so that a caller may remember what it has
    hashed. `where`: what errors call the directory, if it is a copy of another.
    """
    shown = where or str(directory)
    for name in sorted(
        {entry.name for entry in directory.iterdir()} - {*manifest.files, MANIFEST_FILE}
    ):
        raise _broken(f"{shown}/{name} is not in the manifest", remedy=remedy)
    for name, entry in sorted(manifest.files.items()):
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise _broken(f"{shown}/{name} is missing or no plain file", remedy=remedy)
        if (size := path.stat().st_size) != entry.bytes:
            raise _broken(
                f"{shown}/{name} has {size} bytes, its manifest says {entry.bytes}", remedy=remedy
            )
        if sha256(path) != entry.sha256:
            raise _broken(
                f"{shown}/{name} has been altered: its sha256 is not the one in the manifest",
                remedy=remedy,
            )


def is_intact(directory: Path, manifest: Manifest) -> bool:
    """Tell whether a local directory holds exactly this manifest and its files."""
    try:
        if (directory / MANIFEST_FILE).read_bytes() != manifest.to_bytes():
            return False
        verify_directory(directory, manifest, remedy=DAMAGED_REMEDY)
    except (OSError, SealError):
        return False
    return True


def manifest_of(directory: Path, names: tuple[str, ...]) -> Manifest:
    """Manifest of the named files of a local directory."""
    return Manifest(
        files={
            name: FileEntry(
                sha256=sha256_of_file(directory / name), bytes=(directory / name).stat().st_size
            )
            for name in names
        }
    )


def write_directory(source: Path, names: tuple[str, ...], target: Path) -> Manifest:
    """Copy the named files into a new directory, durably, and write their manifest last.

    What was copied is what is hashed.
    """
    target.mkdir()
    entries: dict[str, FileEntry] = {}
    for name in names:
        sha256, size = copy_durably(source / name, target / name)
        entries[name] = FileEntry(sha256=sha256, bytes=size)
    manifest = Manifest(files=entries)
    with (target / MANIFEST_FILE).open("xb") as file:
        file.write(manifest.to_bytes())
        flush(file)
    return manifest


def _broken(message: str, *, remedy: str) -> Internal:
    return Internal(message, remedy=remedy)
