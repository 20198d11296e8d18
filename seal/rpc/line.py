"""Callers that wait because the engine's queue is full: first come, first served.

A full queue is no error of the caller and no attempt. Whoever meets it takes a place in the line,
and its stream goes on saying QUEUED. Only the first in line asks the engine, now and then and with
jitter, since other processes may ask the same engine's machine for other things at the same pace.
Who has no time left gets the engine's own refusal, which says when to come back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from seal.errors import Exhausted
from seal.metrics import metrics

Result = TypeVar("Result")
Given = TypeVar("Given")

TimeLeft = Callable[[], float | None]
"""Seconds that a caller can still wait; None: as long as it takes."""

LONGEST_LINE = 4096
"""Places in one line: more callers are refused at once, as a server refuses more calls."""
PAUSE_SECONDS = 0.2
"""Mean time between two questions of the first in line."""
LAST_WORD_SECONDS = 0.5
"""So long before its deadline a waiting caller is refused, while it can still hear why."""


class EngineTask(Protocol[Result]):
    """What every request to the engine returns."""

    @property
    def future(self) -> concurrent.futures.Future[Result]:
        """Ends with the result, an error, or cancelled."""

    def cancel(self) -> object:
        """Ask the engine to drop the request at its next step; a finished one stays finished."""


class Line:
    """The line before one queue of the engine; belongs to one event loop."""

    def __init__(self, kind: str) -> None:
        """`kind`: train, generate or evaluate."""
        self._waiting: deque[asyncio.Event] = deque()
        self._gauge = metrics.waiting_calls.labels(kind=kind)

    def __len__(self) -> int:
        return len(self._waiting)

    async def enter_at_once(
        self, start: Callable[[], EngineTask[Given]]
    ) -> EngineTask[Given] | None:
        """Start a task if nobody waits and the queue has room; None if not.

        `start` runs on a thread, because the engine tokenises and checks a request before it queues
        it. What it raises beside Exhausted comes out here.
        """
        if self._waiting:
            return None
        try:
            return await _on_thread(start)
        except Exhausted:
            return None

    async def wait(
        self, start: Callable[[], EngineTask[Given]], time_left: TimeLeft
    ) -> EngineTask[Given]:
        """Take a place, and start the task when it is this caller's turn and the queue has room.

        Raises Exhausted when the caller's time or the line's length is used up, and what `start`
        raises.
        """
        if len(self._waiting) >= LONGEST_LINE:
            raise _no_room(f"{LONGEST_LINE} requests wait for a place in the engine's queue")
        place = asyncio.Event()
        self._waiting.append(place)
        self._gauge.set(len(self._waiting))
        try:
            return await self._until_room(place, start, time_left)
        finally:
            self._waiting.remove(place)
            self._gauge.set(len(self._waiting))
            if self._waiting:
                self._waiting[0].set()

    async def _until_room(
        self, place: asyncio.Event, start: Callable[[], EngineTask[Given]], time_left: TimeLeft
    ) -> EngineTask[Given]:
        refused = _no_room("the engine's queue is full")
        while True:
            if self._waiting[0] is place:
                try:
                    return await _on_thread(start)
                except Exhausted as error:
                    refused = error
            seconds = time_left()
            if seconds is not None and seconds <= LAST_WORD_SECONDS:
                raise refused
            pause = PAUSE_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            if seconds is not None:
                pause = min(pause, seconds - LAST_WORD_SECONDS)
            await _sleep_unless(place, pause)


def _no_room(message: str) -> Exhausted:
    return Exhausted(
        message, remedy="try again later or add servers", retry_after_seconds=10 * PAUSE_SECONDS
    )


async def _sleep_unless(called: asyncio.Event, seconds: float) -> None:
    """Sleep, but wake up when the one before has left the line."""
    try:
        async with asyncio.timeout(seconds):
            await called.wait()
    except TimeoutError:
        return
    called.clear()


async def _on_thread(start: Callable[[], EngineTask[Given]]) -> EngineTask[Given]:
    """Start on a thread; a caller that leaves meanwhile leaves no task behind."""
    starting = asyncio.create_task(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_cancel_started)
        raise


def _cancel_started(starting: asyncio.Task[EngineTask[Given]]) -> None:
    """The caller left while the request was being queued."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().cancel()
