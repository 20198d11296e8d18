"""Runs and adaptations that were cancelled, as all who share the artifact store can see.

{run}/cancelled   an empty file, once its owner has cancelled it for good
"""

from __future__ import annotations

from seal.artifacts import ArtifactStore
from seal.runs.store import in_thread


async def mark_cancelled(store: ArtifactStore, run: str) -> None:
    """Let everybody know; again and again does no harm. Raises SealError: the store is away."""
    await in_thread(store.create_bytes, _mark(run), b"")


async def is_cancelled(store: ArtifactStore, run: str) -> bool:
    """Whether nobody wants the work of a run any more. Raises SealError: the store is away."""
    return await in_thread(store.exists, _mark(run))


def _mark(run: str) -> str:
    return f"{run}/cancelled"
