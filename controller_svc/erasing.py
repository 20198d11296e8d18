"""Taking what a run or an adaptation has left out of the artifact store."""

from __future__ import annotations

from collections.abc import Collection

from seal.artifacts import ArtifactStore
from seal.records import AdapterReference


def erase_run(store: ArtifactStore, run: str, *, kept: Collection[AdapterReference]) -> None:
    """Remove all files of a run but the adapters to be kept; what is gone already does not matter.

    It blocks. Nothing of the run may be at work.

    Raises:
        SealError: the store is away; the next call goes on.

    """
    folder = f"{run}/adapters"
    addresses = {path.rpartition("/")[0] for path in store.list(folder)}
    published = {
        AdapterReference(path=address, sha256=address.rpartition("/")[2]) for address in addresses
    }
    for adapter in published - set(kept):
        store.remove_directory(adapter)
    paths = [path for path in store.list(run) if not path.startswith(f"{folder}/")]
    # What a killed writer has left may hold text of a document
    store.remove_leftovers(run, older_than_seconds=0.0)
    for path in paths:
        store.remove(path)
    store.remove_empty_directories(run)
