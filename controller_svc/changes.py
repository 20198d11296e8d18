"""Changes that are made to their end, also if their callers have gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Changes:
    """Those under way; belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def make(self, change: Coroutine[Any, Any, Result]) -> Result:
        """What a change gives; a caller that is cancelled does not stop it."""
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def ended(self) -> None:
        """Wait for those under way, however they end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
