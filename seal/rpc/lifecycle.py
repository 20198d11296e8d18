"""How a serving process ends: at a signal, at a second one, or because its engine is broken.

a signal         NOT_SERVING, a pause in which calls are still accepted, then the running ones
                 and the work that no call waits for end within one grace
a second signal  at once: nothing is waited for any more
a broken engine  NOT_SERVING, every call ends with UNAVAILABLE, and the process with exit code
                 43, so that another one takes its place
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from seal.errors import Transient
from seal.rpc.server import Registration, RunningServer, start_server
from seal.rpc.settings import ServerSettings

log = structlog.get_logger(__name__)

Signals = asyncio.Queue[signal.Signals]

WATCH_SECONDS = 1.0
"""Time between two looks at the engine's health."""
BROKEN_GRACE_SECONDS = 2.0
"""How long the streams of a broken engine may take to hear of it."""


@asynccontextmanager
async def stop_signals() -> AsyncIterator[Signals]:
    """SIGTERM and SIGINT as a queue; main thread only."""
    signals: Signals = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        yield signals
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _healthy() -> None:
    """The default of `broken`."""


def _nothing_to_suspend() -> None:
    """The default of `Serving.suspend`."""


async def _nothing_to_drain(grace_seconds: float) -> None:
    """The default of `Serving.drain`."""


@dataclass(frozen=True)
class Serving:
    """A service that can be served and ended."""

    register: Registration
    suspend: Callable[[], None] = _nothing_to_suspend
    """Called once no new work is routed here: put aside what can go on elsewhere or later. Returns
    at once."""
    drain: Callable[[float], Awaitable[None]] = _nothing_to_drain
    """Called once the server has stopped, with the seconds that work which no call waits for may
    still take."""


async def serve_until_signal(
    serving: Serving,
    *,
    address: str,
    signals: Signals,
    settings: ServerSettings | None = None,
    grace_seconds: float = 30.0,
    broken: Callable[[], str | None] = _healthy,
    on_started: Callable[[RunningServer], None] | None = None,
) -> bool:
    """Serve until a signal and end in order; False if a second signal cut that short.

    After False nothing has been waited for: the process should end without another `await`.

    The calls and `serving.drain` share one grace. `broken` is asked every second why the work can
    never go on.

    Raises InvalidInput for an address that is none, Transient once `broken` gives a reason.
    """
    running = await start_server([serving.register], address=address, settings=settings)
    if on_started is not None:
        on_started(running)
    first = asyncio.create_task(signals.get())
    watch = asyncio.create_task(_until_broken(broken))
    await asyncio.wait({first, watch}, return_when=asyncio.FIRST_COMPLETED)
    if watch.done():
        first.cancel()
        log.error("engine broken, ending", reason=watch.result(), address=running.address)
        await running.stop(BROKEN_GRACE_SECONDS)
        raise Transient(f"the engine is broken: {watch.result()}", remedy="start the process again")
    watch.cancel()
    log.info("stopping", signal=first.result().name, grace_seconds=grace_seconds)
    stopping = asyncio.create_task(_stop(running, grace_seconds, serving))
    again = asyncio.create_task(signals.get())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        log.warning("stopping at once", signal=again.result().name, address=running.address)
        return False
    again.cancel()
    stopping.result()
    return True


async def _stop(running: RunningServer, grace_seconds: float, serving: Serving) -> None:
    """End in order; calls and drain share one grace."""
    await running.leave()
    serving.suspend()
    deadline = time.monotonic() + grace_seconds
    await running.stop(grace_seconds)
    await serving.drain(max(0.0, deadline - time.monotonic()))


async def _until_broken(broken: Callable[[], str | None]) -> str:
    """Wait for a reason."""
    while (reason := broken()) is None:  # noqa: ASYNC110 - the reason comes from another thread
        await asyncio.sleep(WATCH_SECONDS)
    return reason
