"""From the engine's thread to an RPC: own a task for a call, sample its progress steadily.

The engine reports every step from its own thread; a client wants a few messages a second and a sign
of life while nothing happens. So the engine's callback only replaces one value (`Newest`), and the
call reads it at an interval: no queue that can grow, no event per step on the loop, and a slow
client skips what it was too slow for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from seal.errors import Transient
from seal.rpc.line import EngineTask, Line, TimeLeft
from seal.settings import EngineSettings

Value = TypeVar("Value")
Result = TypeVar("Result")


class LivingEngine(Protocol):
    """What tells whether an engine still works."""

    @property
    def settings(self) -> EngineSettings:
        """How long it may be silent, among others."""

    @property
    def broken(self) -> str | None:
        """Why it will never work again; None while it works."""

    @property
    def heartbeat_seconds(self) -> float:
        """Age of its last sign of life."""


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
    start: Callable[[], EngineTask[Result]], *, line: Line, time_left: TimeLeft
) -> AsyncIterator[asyncio.Task[Result]]:
    """Start an engine task and own it for the length of the block.

    Gives a task of the running loop that ends with the result or what went wrong; wait for it with
    `asyncio.wait` or `sample`. If the engine's queue is full it waits in `line`, as long as
    `time_left` allows, and ends with Exhausted after that. What the engine refuses at the door
    comes out here. Leaving early (client gone, deadline, error) cancels the work.
    """
    entered = await line.enter_at_once(start)
    finished = asyncio.create_task(_end(entered, start, line, time_left))
    finished.add_done_callback(_retrieve)
    try:
        yield finished
    finally:
        finished.cancel()
        if entered is not None and not entered.future.done():
            entered.cancel()  # a task that is cancelled before its first step never runs


async def sample(
    newest: Newest[Value],
    finished: asyncio.Future[Result],
    *,
    pace: Pace,
    alive: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Value]:
    """Yield the newest value now, whenever it changed, as a heartbeat, and changed at the end.

    While the engine is not `alive` there are no heartbeats: a caller that hears nothing for long
    asks elsewhere.
    """
    sent: Value | None = None
    sent_at = float("-inf")
    while True:
        ended = finished.done()
        value, now = newest.value, time.monotonic()
        due = not ended and now - sent_at >= pace.heartbeat_seconds and (sent is None or alive())
        if value != sent or due:
            yield value
            sent, sent_at = value, now
        if ended:
            return
        await asyncio.wait({finished}, timeout=pace.interval_seconds)


def shows_life(engine: LivingEngine) -> bool:
    """Whether an engine works and gave its last sign of life within `engine.stallSeconds`."""
    return engine.broken is None and engine.heartbeat_seconds < engine.settings.stall_seconds


async def _end(
    entered: EngineTask[Result] | None,
    start: Callable[[], EngineTask[Result]],
    line: Line,
    time_left: TimeLeft,
) -> Result:
    """The end of an engine task; cancelling this cancels the work.

    Awaiting the engine's future directly would let a cancelled caller cancel that future without
    the engine's knowing.
    """
    task = entered or await line.wait(start, time_left)
    future = asyncio.wrap_future(task.future)
    try:
        await asyncio.wait({future})
    finally:
        if not task.future.done():
            task.cancel()
        future.add_done_callback(_retrieve)
    if future.cancelled():
        raise Transient(
            "the engine dropped the request because it is closing",
            remedy="send the same request again",
        )
    return future.result()


def _retrieve(finished: asyncio.Future[Result]) -> None:
    """Mark an error as seen.

    A caller that has left does not want it in the log as never retrieved.
    """
    if not finished.cancelled():
        finished.exception()
