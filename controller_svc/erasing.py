"""Taking what a run or an adaptation has left out of the artifact store."""

from __future__ import annotations

from collections.abc import Collection

from seal.artifacts import ArtifactStore
from seal.records import AdapterReference
from seal.runs.store import adapters_path, published_adapters


def erase_run(store: ArtifactStore, run: str, *, kept: Collection[AdapterReference]) -> None:
    """Remove all files of a run but the adapters to be kept; what is gone already does not matter.

    It blocks. Nothing of the run may be at work.

    Raises:
        SealError: the store is away; the next call goes on.

    """
    for adapter in published_adapters(store, run) - set(kept):
        store.remove_directory(adapter)
    paths = [path for path in store.list(run) if not path.startswith(f"{adapters_path(run)}/")]
    # What a killed writer has left may hold text of a document
    store.remove_leftovers(run, older_than_seconds=0.0)
    for path in paths:
        store.remove(path)
    store.remove_empty_directories(run)
