"""What a run leaves behind is what something refers to; the rest is deleted.

An inner adapter is of use until its shard has a summary: its answers are in the records. Stored
trainings, their claims and checkpoints are of use for retries, until the run ends. Nothing here
makes a run fail: what could not be deleted is deleted by the sweep at the run's end, or, where that
was cut off, by the next process that opens it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import structlog

from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.records import AdapterReference, ContextRecord
from seal.runs.store import adapters_path, in_thread, published_adapters

log = structlog.get_logger(__name__)

SHORT_LIVED = ("trainings", "claims", "checkpoints")
"""Folders of a run that are for retries only."""


def inner_adapters(records: Iterable[ContextRecord]) -> tuple[AdapterReference, ...]:
    """The adapters of all inner loops, each once, in order."""
    found = {
        loop.training.adapter: None
        for record in records
        for loop in record.inner_loops
        if loop.training is not None and loop.training.adapter is not None
    }
    return tuple(found)


async def measure(
    store: ArtifactStore, *, records_path: str, adapters: Sequence[AdapterReference]
) -> dict[str, int]:
    """Bytes in the store by kind: `records` of a shard, and `adapters`."""

    def sizes() -> dict[str, int]:
        of_adapters = sum(store.bytes_under(adapter.path) for adapter in adapters)
        return {"records": store.bytes_under(records_path), "adapters": of_adapters}

    return await in_thread(sizes)


async def remove_adapters(store: ArtifactStore, adapters: Iterable[AdapterReference]) -> None:
    """Delete adapters that nothing refers to any more."""

    def remove() -> None:
        for adapter in adapters:
            store.remove_directory(adapter)

    try:
        await in_thread(remove)
    except SealError as error:
        log.warning("inner adapters not deleted", reason=str(error))


async def is_swept(store: ArtifactStore, run: str) -> bool:
    """Whether what goes on no more has been swept. Raises SealError: the store is away."""
    return await in_thread(store.exists, swept_path(run))


def swept_path(run: str) -> str:
    """An empty file, once what goes on no more has been swept."""
    return f"{run}/swept"


async def sweep_run(
    store: ArtifactStore,
    run: str,
    *,
    policies: Collection[AdapterReference],
    keep_inner_adapters: bool,
    for_good: bool = False,
) -> bool:
    """Delete what a run that has ended does not need: all but its records and its policies.

    What killed writers have left among adapters and checkpoints goes, too. False if something could
    not be deleted. `for_good`: it goes on no more, and that it was swept is noted.
    """

    def sweep() -> int:
        doomed = [path for name in SHORT_LIVED for path in store.list(f"{run}/{name}")]
        for path in doomed:
            store.remove(path)
        adapters = set() if keep_inner_adapters else published_adapters(store, run) - set(policies)
        for adapter in adapters:
            store.remove_directory(adapter)
        # Of any age: who still writes there has been given up, and nobody waits for what he writes
        left = [
            store.remove_leftovers(path, older_than_seconds=0.0)
            for path in (*(f"{run}/{name}" for name in SHORT_LIVED), adapters_path(run))
        ]
        for name in SHORT_LIVED:
            store.remove_empty_directories(f"{run}/{name}")
        if for_good:
            store.create_bytes(swept_path(run), b"")
        return len(doomed) + len(adapters) + sum(left)

    try:
        removed = await in_thread(sweep)
    except SealError as error:
        log.warning("run not swept", run=run, reason=str(error))
        return False
    log.info("run swept", run=run, removed=removed)
    return True
