"""Who used how much of vLLM's time: rows that are written together share it equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class RowTime:
    """What a row has used."""

    seconds: float


class SharedTime:
    """A clock per row that runs at 1 / (rows at work), so that shares sum to the time passed.

    Belongs to one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows = 0
        self._share_seconds = 0.0
        """What a row at work since the beginning would have used."""
        self._last = clock()

    @contextmanager
    def row(self) -> Iterator[RowTime]:
        """A row is at work for the length of the block; its share is known after it."""
        self._advance()
        self._rows += 1
        mine = RowTime(-self._share_seconds)
        try:
            yield mine
        finally:
            self._advance()
            self._rows -= 1
            mine.seconds += self._share_seconds

    def _advance(self) -> None:
        now = self._clock()
        if self._rows:
            self._share_seconds += (now - self._last) / self._rows
        self._last = now
