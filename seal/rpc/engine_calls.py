"""From the engine's thread to an RPC: own a task for a call, sample its progress steadily.

The engine reports every step from its own thread; a client wants a few messages a second and a sign
of life while nothing happens. So the engine's callback only replaces one value (`Newest`), and the
call reads it at an interval: no queue that can grow, no event per step on the loop, and a slow
client skips what it was too slow for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from seal.errors import Transient

Value = TypeVar("Value")
Result = TypeVar("Result")


class EngineTask(Protocol[Result]):
    """What every request to the engine returns."""

    @property
    def future(self) -> concurrent.futures.Future[Result]:
        """Ends with the result, an error, or cancelled."""

    def cancel(self) -> object:
        """Ask the engine to drop the request at its next step; a finished one stays finished."""


@dataclass(frozen=True)
class Pace:
    """How often a stream speaks."""

    interval_seconds: float = 0.2
    """Shortest time between two progress messages."""
    heartbeat_seconds: float = 10.0
    """Longest time without one: the last is said again."""


class Newest(Generic[Value]):
    """The newest value of a series; any thread sets it, any task reads it."""

    def __init__(self, first: Value) -> None:
        self.value = first

    def set(self, value: Value) -> None:
        """Replace the value."""
        self.value = value


@asynccontextmanager
async def engine_call(
    start: Callable[[], EngineTask[Result]],
) -> AsyncIterator[asyncio.Future[Result]]:
    """Start an engine task and own it for the length of the block.

    Leaving early (client gone, deadline, error) cancels the work. `start` runs on a thread, because
    the engine tokenises and checks a request before it queues it; what it raises comes out here.
    Gives the task's end as a future of the running loop; wait with `asyncio.wait` and read it with
    `result_of`. Awaiting it directly would let the cancelled caller cancel the engine's future
    without the engine's knowing.
    """
    starting = asyncio.create_task(asyncio.to_thread(start))
    try:
        task = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_cancel_started)
        raise
    finished = asyncio.wrap_future(task.future)
    finished.add_done_callback(_retrieve)
    try:
        yield finished
    finally:
        if not task.future.done():
            task.cancel()


def result_of(finished: asyncio.Future[Result]) -> Result:
    """Result of a done future.

    Raises its error; Transient if the engine dropped the task though nobody asked for it.
    """
    if finished.cancelled():
        raise Transient(
            "the engine dropped the request because it is closing",
            remedy="send the same request again",
        )
    return finished.result()


async def sample(
    newest: Newest[Value], finished: asyncio.Future[Result], *, pace: Pace
) -> AsyncIterator[Value]:
    """Yield the newest value now, when it changed, as a heartbeat, and at the end if it changed.

    At most one change in every interval.
    """
    sent: Value | None = None
    sent_at = float("-inf")
    while True:
        ended = finished.done()
        value, now = newest.value, time.monotonic()
        if value != sent or (not ended and now - sent_at >= pace.heartbeat_seconds):
            yield value
            sent, sent_at = value, now
        if ended:
            return
        await asyncio.wait({finished}, timeout=pace.interval_seconds)


def _retrieve(finished: asyncio.Future[Result]) -> None:
    """Mark an error as seen.

    A caller that has left does not want it in the log as never retrieved.
    """
    if not finished.cancelled():
        finished.exception()


def _cancel_started(starting: asyncio.Task[EngineTask[Result]]) -> None:
    """The caller left while the request was being queued."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().cancel()
