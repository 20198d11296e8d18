"""What is to be looked at, and when: each object once, however often it was asked for.

The queue is plain data and is told the time. An object that is at work is given to nobody else; if
it is asked for meanwhile it comes again afterwards, so that no news is lost and no object has two
workers. Who is due longest comes first, so that one that is asked for all the time takes no turn
from others; one that failed waits longer each time, by itself.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from controller_svc.core import AttemptBudget

Key = TypeVar("Key", bound=Hashable)

AGAIN = AttemptBudget(attempts=1, base_seconds=0.5, max_seconds=20.0)
"""Pauses of an object that fails; it is never given up. After a server's outage all go on within
the longest."""


class WorkQueue(Generic[Key]):
    """Objects by the time at which they are due, in seconds of any one clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._at_work: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        """Objects that are due now or later; those at work do not count."""
        return len(self._due)

    def add(self, key: Key, *, at_seconds: float) -> None:
        """Let an object be looked at; an earlier time counts.

        The pause of one that failed is kept: the news may be what it did itself.
        """
        at_seconds = max(at_seconds, self._not_before.get(key, at_seconds))
        if at_seconds < self._due.get(key, float("inf")):
            self._due[key] = at_seconds
            self._push(key)

    def take(self, now_seconds: float) -> Key | None:
        """The object that is due longest, to be worked at; None if none is due."""
        while self._heap and self._heap[0][0] <= now_seconds:
            due_seconds, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due_seconds and key not in self._at_work:
                del self._due[key]
                self._at_work.add(key)
                return key
        return None

    def done(self, key: Key) -> None:
        """An object was looked at, and nothing went wrong."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._leave(key)

    def failed(
        self, key: Key, *, now_seconds: float, retry_after_seconds: float | None = None
    ) -> float:
        """An object could not be looked after; it comes again after so many seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_seconds = AGAIN.delay_seconds(
            name=f"{key} {failures}",
            attempt=failures + 1,
            retry_after_seconds=retry_after_seconds or 0.0,
        )
        self._due[key] = self._not_before[key] = now_seconds + pause_seconds
        self._leave(key)
        return pause_seconds

    def due_seconds(self) -> float | None:
        """When the next one is due; None if none is."""
        while self._heap and not self._counts(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _counts(self, due_seconds: float, _: int, key: Key) -> bool:
        return self._due.get(key) == due_seconds and key not in self._at_work

    def _leave(self, key: Key) -> None:
        self._at_work.discard(key)
        if key in self._due:
            self._push(key)

    def _push(self, key: Key) -> None:
        heapq.heappush(self._heap, (self._due[key], next(self._order), key))


class Workers(Generic[Key]):
    """Works off a queue, several objects at once."""

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        on_failure: Callable[[Key, Exception], float | None],
        *,
        count: int,
    ) -> None:
        """`work` gives the seconds after which another look is worth it, None for no look.

        `on_failure` is told what `work` raised, and gives the least pause that was asked for.
        """
        self._work, self._on_failure, self._count = work, on_failure, count
        self._queue: WorkQueue[Key] = WorkQueue()
        self._news = asyncio.Event()
        self._free = count

    def __len__(self) -> int:
        """Objects that wait, now or for later."""
        return len(self._queue)

    def add(self, key: Key, *, after_seconds: float = 0.0) -> None:
        """Let an object be looked at."""
        self._queue.add(key, at_seconds=time.monotonic() + after_seconds)
        self._news.set()

    async def run(self) -> NoReturn:
        """Work until cancelled; what is at work is cancelled with it."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                while self._free and (key := self._queue.take(time.monotonic())) is not None:
                    self._free -= 1
                    group.create_task(self._look_after(key))
                await self._wait()

    async def _wait(self) -> None:
        """Until there is news, or the next one is due and somebody is free."""
        due_seconds = self._queue.due_seconds() if self._free else None
        pause_seconds = None if due_seconds is None else max(0.0, due_seconds - time.monotonic())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), pause_seconds)

    async def _look_after(self, key: Key) -> None:
        try:
            again_seconds = await self._work(key)
        except Exception as error:  # noqa: BLE001 - the loop's boundary: no object stops the others
            asked = self._on_failure(key, error)
            self._queue.failed(key, now_seconds=time.monotonic(), retry_after_seconds=asked)
        else:
            if again_seconds is not None:
                self._queue.add(key, at_seconds=time.monotonic() + again_seconds)
            self._queue.done(key)
        finally:
            self._free += 1
            self._news.set()
