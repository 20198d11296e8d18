"""Whether the engine still works.

Its thread leaves a sign of life at every step, and within it at every pass: a step has as many
passes as its tokens ask for, on a slow machine hours of them. A second thread looks whether the
signs stay away while work waits: a product that never returns (a lost device, a dead lock in a
driver) cannot say so itself. An engine that is broken stays broken; another process takes its work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WATCH_SECONDS = 5.0
"""Longest time between two looks."""


def unwatched() -> None:
    """The sign of life of work that nobody watches."""


class Health:
    """Signs of life of one thread. Safe to use from any thread."""

    def __init__(self, *, stall_seconds: float, on_broken: Callable[[str], None]) -> None:
        """`on_broken(reason)` is called once, from the thread that finds out."""
        self._stall_seconds, self._on_broken = stall_seconds, on_broken
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._reason: str | None = None
        self._last_sign: float | None = None
        threading.Thread(target=self._watch, name="seal-engine-watch", daemon=True).start()

    @property
    def reason(self) -> str | None:
        """Why the engine is broken; None while it works."""
        return self._reason

    @property
    def silent_seconds(self) -> float:
        """Age of the last sign of life; 0 while there is nothing to do."""
        last = self._last_sign
        return 0.0 if last is None else time.monotonic() - last

    def alive(self) -> None:
        """A sign of life: a step or a pass has ended, or the next one begins."""
        self._last_sign = time.monotonic()

    def rest(self) -> None:
        """Nothing is to be done: from now on silence means nothing."""
        self._last_sign = None

    def give_up(self, reason: str) -> None:
        """Declare the engine broken; the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
        self._on_broken(reason)

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _watch(self) -> None:
        interval_seconds = min(WATCH_SECONDS, self._stall_seconds / 4)
        while not self._ended.wait(interval_seconds):
            if (silent := self.silent_seconds) > self._stall_seconds:
                self.give_up(f"no pass of the engine has ended for {silent:.0f} s")
                return
