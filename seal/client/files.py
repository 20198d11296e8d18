"""Documents as they lie on this machine: files, directories, globs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from seal.client.types import Document
from seal.documents.read import SUFFIXES
from seal.errors import InvalidInput, NotFound
from seal.files import file_errors, read_bounded
from seal.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_NAME_CHARACTERS, MAX_DOCUMENTS

_WILDCARDS = "*?["


def read_documents(places: Iterable[str | Path]) -> tuple[Document, ...]:
    """The documents of files, of directories with all that lies below them, and of globs.

    A file that is named is taken whatever its name is; of a directory those are whose names end
    like a document's, hidden ones left out. Each is named by its path below the place that was
    given. Every file is taken once.

    Raises:
        NotFound: there is nothing of this name.
        InvalidInput: no document in a directory, too many, too large, or two of one name.
        PreconditionFailed: a file may not be read.

    """
    found: dict[Path, str] = {}
    for place in places:
        for path, name in _files_of(str(place)):
            found.setdefault(_resolved(path), name)
    if len(found) > MAX_DOCUMENTS:
        raise InvalidInput(
            f"{len(found)} files are found, the limit is {MAX_DOCUMENTS}",
            field="documents",
            remedy="hand in fewer at once",
        )
    _check_names(found)
    return tuple(_read(path, name) for path, name in found.items())


def _files_of(place: str) -> Sequence[tuple[Path, str]]:
    """Files of one place, each with its name below it."""
    path = _expanded(place)
    with file_errors(path):
        if path.is_dir():
            return _below(path)
        if path.exists() or not any(character in place for character in _WILDCARDS):
            return [(path, path.name)]
        fixed = _fixed_part(path)
        files = [
            (file, name)
            for file in sorted(fixed.glob(path.relative_to(fixed).as_posix()))
            if not _is_hidden(name := file.relative_to(fixed).as_posix()) and file.is_file()
        ]
    if not files:
        raise NotFound(f"{place} matches no file", field="documents", remedy="check the pattern")
    return files


def _expanded(place: str) -> Path:
    if not place:
        raise InvalidInput(
            "an empty path names no document",
            field="documents",
            remedy="is a variable of the shell not set? `.` is this directory",
        )
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        raise NotFound(
            f"{place} does not exist: there is no such user",
            field="documents",
            remedy="check the path",
        ) from error


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:
        raise InvalidInput(
            f"{path} is a link that leads back to itself",
            field="documents",
            remedy="give another path",
        ) from error


def _below(directory: Path) -> Sequence[tuple[Path, str]]:
    files = [
        (file, name)
        for file in sorted(directory.rglob("*"))
        if not _is_hidden(name := file.relative_to(directory).as_posix())
        and file.suffix.lower() in SUFFIXES
        and file.is_file()
    ]
    if not files:
        raise InvalidInput(
            f"{directory} holds no document",
            field="documents",
            remedy=f"documents end with one of: {', '.join(SUFFIXES)}; name others one by one",
        )
    return files


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _fixed_part(pattern: Path) -> Path:
    """The directory before the first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if any(character in part for character in _WILDCARDS):
            break
        parts.append(part)
    return Path(*parts)


def _check_names(found: dict[Path, str]) -> None:
    seen: dict[str, Path] = {}
    for path, name in found.items():
        if not _is_utf8(name):
            raise InvalidInput(
                f"the name of {str(path)!a} is no UTF-8", field="documents", remedy="rename it"
            )
        if len(name) > MAX_DOCUMENT_NAME_CHARACTERS:
            raise InvalidInput(
                f"the name of {path} would have {len(name)} characters, the limit is "
                f"{MAX_DOCUMENT_NAME_CHARACTERS}",
                field="documents",
                remedy="give a directory further down: names are paths below what is given",
            )
        if name in seen:
            raise InvalidInput(
                f"{seen[name]} and {path} would both be called {name}",
                field="documents",
                remedy="give the directory above both, so that their names tell them apart",
            )
        seen[name] = path


def _is_utf8(name: str) -> bool:
    """Python stands surrogates for the bytes of a name that are none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(path: Path, name: str) -> Document:
    return Document(name=name, content=read_bounded(path, MAX_DOCUMENT_BYTES, field="documents"))
