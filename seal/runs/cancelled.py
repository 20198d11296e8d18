"""What nobody wants any more, as all who share the artifact store can see.

{run}/cancelled        an empty file, once it goes on no more and its trainings are to stop
{run}/claims/*.json    a training that a trainer works at, which renews it every few seconds
"""

from __future__ import annotations

from contextlib import suppress

from seal.artifacts import ArtifactStore
from seal.errors import NotFound
from seal.runs.store import in_thread

CLAIM_SECONDS = 60.0
"""A claim that was not renewed for so long is that of a killed trainer."""


async def mark_cancelled(store: ArtifactStore, run: str) -> None:
    """Let everybody know; again and again does no harm. Raises SealError: the store is away."""
    await in_thread(store.create_bytes, _mark(run), b"")


async def is_cancelled(store: ArtifactStore, run: str) -> bool:
    """Whether nobody wants the work of a run any more. Raises SealError: the store is away."""
    return await in_thread(store.exists, _mark(run))


async def is_trained(store: ArtifactStore, run: str) -> bool:
    """Whether a trainer is still at work for a run, and will write a result.

    Raises:
        SealError: the store is away.

    """

    def look() -> bool:
        for path in store.list(f"{run}/claims"):
            with suppress(NotFound):  # given up meanwhile
                if path.endswith(".json") and store.age_seconds(path) < CLAIM_SECONDS:
                    return True
        return False

    return await in_thread(look)


def _mark(run: str) -> str:
    return f"{run}/cancelled"
