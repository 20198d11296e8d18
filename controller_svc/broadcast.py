"""One value that changes, and any number of those who follow it.

Nobody polls: whoever follows waits for the next change, and all of them get the same object. Who is
slow misses what came in between, never the newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from seal.errors import SealError

Value = TypeVar("Value")


class Broadcast(Generic[Value]):
    """A value and its followers; belongs to one event loop."""

    def __init__(self, value: Value) -> None:
        self.value = value
        """The newest."""
        self._version = 0
        self._ended = False
        self._error: Callable[[], SealError] | None = None
        self._changed = asyncio.Event()

    def set(self, value: Value) -> None:
        """Give every follower a new value."""
        self.value = value
        self._version += 1
        self._wake()

    def end(self, error: Callable[[], SealError] | None = None) -> None:
        """End every follower after the newest value, or each with an error of its own at once."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    async def follow(self) -> AsyncIterator[Value]:
        """The value, and again whenever it has changed, until the end.

        Raises:
            SealError: what it was ended with.

        """
        seen = -1
        while True:
            if self._error is not None:
                raise self._error()
            if seen != self._version:
                seen = self._version
                yield self.value
            elif self._ended:
                return
            else:
                await self._changed.wait()

    def _wake(self) -> None:
        """Wake who waits now; who waits later waits for the next change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
