"""How long a shard has been worked at, over all its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable

from seal.artifacts import ArtifactStore
from seal.records import Record
from seal.runs.store import in_thread

CLOCK_INTERVAL_SECONDS = 2.0
"""Work of a killed attempt that is younger than this is missing from `ShardSummary.seconds`."""


class ClockRecord(Record):
    """Seconds that a shard's attempts have worked so far."""

    seconds: float


class ShardClock:
    """Wall time of a shard over all its attempts.

    Each leaves its time behind while it works, as it may be killed.
    """

    def __init__(
        self,
        store: ArtifactStore,
        path: str,
        *,
        seconds_before: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._path, self._before, self._clock = store, path, seconds_before, clock
        self._started = self._saved = clock()

    @property
    def seconds(self) -> float:
        """Seconds worked so far."""
        return self._before + self._clock() - self._started

    async def tick(self) -> None:
        """Note the time, now and then."""
        now = self._clock()
        if now - self._saved >= CLOCK_INTERVAL_SECONDS:
            self._saved = now
            await in_thread(self._store.write_json, self._path, ClockRecord(seconds=self.seconds))
