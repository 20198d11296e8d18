"""The roots of commands that look at what is there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from controller_svc.cli.options import DEFAULT_ROOT
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound
from seal.files import file_errors


def existing_store(root: str) -> ArtifactStore:
    """The store of a root in which something is looked for.

    The default one need not be there yet. Raises NotFound or InvalidInput naming a directory of
    this machine that is not there or is a file.
    """
    store = ArtifactStore(root)
    if (directory := local_directory(store)) is None:
        return store
    with file_errors(directory):
        if directory.is_dir():
            return store
        if directory.exists():
            raise InvalidInput(
                f"{directory} is no directory", field="--root", remedy="check --root or SEAL_ROOT"
            )
    if root != DEFAULT_ROOT:
        raise NotFound(
            f"there is no directory {directory}",
            field="--root",
            remedy="check --root or SEAL_ROOT: a first run or adaptation makes it",
        )
    return store


def local_directory(store: ArtifactStore) -> Path | None:
    """The root as a directory of this machine; None for an object store."""
    parts = urlsplit(store.root_uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def shown(uri: str) -> str:
    """A path for a `file://` URI, else the URI."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri
