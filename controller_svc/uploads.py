"""Documents that were uploaded and that no adaptation has been given: they do not stay for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from controller_svc.adaptations import FILES, stored_files
from seal.artifacts import ArtifactStore
from seal.errors import NotFound, SealError

log = structlog.get_logger(__name__)

UNUSED_SECONDS = 24 * 3600.0
"""So long an upload waits for its adaptation; who sends the same again begins anew."""
SWEEP_SECONDS = 6 * 3600.0
"""Between two looks at what is not used; a bucket is asked for the age of each file."""


def sweep_uploads(
    store: ArtifactStore, *, used: Collection[str], older_than_seconds: float = UNUSED_SECONDS
) -> int:
    """Remove uploads that nothing uses, and what killed writers have left; the number of uploads.

    `used`: paths of the files that adaptations were given. None may be added meanwhile. Blocks; the
    caller takes a thread.

    Raises:
        SealError: the store is away.

    """
    unused = set(old_uploads(store, older_than_seconds=older_than_seconds)) - set(used)
    for path in unused:
        store.remove(path)
    return len(unused)


def old_uploads(
    store: ArtifactStore, *, older_than_seconds: float = UNUSED_SECONDS
) -> tuple[str, ...]:
    """Uploads of this age, used or not; what killed writers have left is removed. It blocks.

    Raises:
        SealError: the store is away.

    """
    store.remove_leftovers(FILES, older_than_seconds=older_than_seconds)
    stored = stored_files(store.list(FILES))
    return tuple(path for path in stored if _is_old(store, path, older_than_seconds))


async def sweep_again_and_again(
    sweep: Callable[[], Awaitable[int]], *, pause_seconds: float = SWEEP_SECONDS
) -> None:
    """Sweep now and after each pause, until cancelled; a store that is away is for the next time.

    `sweep` gives the number of uploads that it has removed.
    """
    while True:
        try:
            if removed := await sweep():
                log.info("unused uploads removed", number=removed)
        except SealError as error:
            log.warning("uploads not swept up", message=str(error))
        await asyncio.sleep(pause_seconds)


def _is_old(store: ArtifactStore, path: str, seconds: float) -> bool:
    try:
        return store.age_seconds(path) >= seconds
    except NotFound:
        return False  # somebody else has removed it
