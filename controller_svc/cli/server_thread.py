"""A server in a thread of its own, so that a command may wait for it with blocking calls.

Signals come to the main thread alone: Ctrl-C meets the command, which then ends the server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Self

Block = Callable[[], AbstractAsyncContextManager[str]]
"""Serves as long as its block lasts, and gives the address."""

WAIT_SECONDS = 0.1
"""Longest time until the main thread looks for signals again."""


class ServerThread:
    """A server that lives as long as its block."""

    def __init__(self, block: Block) -> None:
        self.address = ""
        """Where it listens, once the block has begun."""
        self._block = block
        self._error: BaseException | None = None
        self._up, self._down = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="seal-server")

    def __enter__(self) -> Self:
        """Wait until it listens. Raises what keeps it from that."""
        self._thread.start()
        try:
            while not self._up.wait(WAIT_SECONDS):
                pass
            self.check()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise what has ended the server, if something has."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait until it ends by itself. Raises why."""
        while not self._down.wait(WAIT_SECONDS):
            pass
        self.check()

    def _stop(self) -> None:
        """End it in order; one that still starts is cut short."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._leave)
        while not self._down.wait(WAIT_SECONDS):
            pass
        self._thread.join()

    def _leave(self) -> None:
        if self._end is not None:
            self._end.set()
        elif self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except asyncio.CancelledError:
            pass  # asked to end before it was up
        except BaseException as error:  # noqa: BLE001 - the boundary of the thread: the main one raises it
            self._error = error
        finally:
            self._up.set()
            self._down.set()

    async def _serve(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with self._block() as address:
            self.address, self._end = address, asyncio.Event()
            self._up.set()
            await self._end.wait()
