"""Places for calls that take memory or disk: so many at once, some that wait, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from seal.errors import Exhausted

RETRY_AFTER_SECONDS = 5.0
"""When a caller who met too many may ask again."""


class Places:
    """So many places, taken in the order in which they are asked for; of one event loop."""

    def __init__(self, number: int, *, waiting: int, what: str) -> None:
        """`waiting`: so many may wait for a place. `what`: has one or waits, in the plural."""
        self._free = asyncio.Semaphore(number)
        self._most, self._what = number + waiting, what
        self._there = 0
        """Those that have a place, or wait for it."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for the length of the block, once it is this one's turn.

        Raises:
            Exhausted: too many wait already.

        """
        if self._there >= self._most:
            raise Exhausted(
                f"{self._there} {self._what} are under way or wait for their turn",
                remedy="try again later, or have more replicas of the server",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._there += 1
        try:
            async with self._free:
                yield
        finally:
            self._there -= 1
