"""Whether the services that a stage calls are there.

A worker waits for a service that is away, as long as its patience lasts, and says nothing
meanwhile. So that its owner hears why a run does not get on, the controller asks the services'
health itself: each at most once in a while, however many want to know. No look at an object waits
for the answer: it takes the last one, and the next look the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from controller_svc.worker.reaching import Away, Called, ask, called
from controller_svc.worker.settings import ServiceAddresses
from seal.records import Stage

FRESH_SECONDS = 10.0
"""Between two questions to a service."""


class Services(Protocol):
    """Whoever knows whether services answer."""

    def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing is known to."""


class ServiceHealth:
    """Asks them, in tasks that end with this async context manager."""

    def __init__(
        self, addresses: ServiceAddresses, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._addresses, self._clock = addresses, clock
        self._asked_at: dict[Called, float] = {}
        self._answers: dict[Called, Away | None] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ServiceHealth:
        return self

    async def __aexit__(self, *_: object) -> None:
        for asking in self._asking:
            asking.cancel()

    def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing is known to."""
        those = tuple(called(self._addresses, stage))
        for one in those:
            self._refresh(one)
        answers = (self._answers.get(one) for one in those)
        return "; ".join(str(away) for away in answers if away is not None)

    def _refresh(self, one: Called) -> None:
        """Ask a service, unless it was asked just now."""
        now = self._clock()
        if now - self._asked_at.get(one, float("-inf")) < FRESH_SECONDS:
            return
        self._asked_at[one] = now
        asking = asyncio.create_task(self._ask(one))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _ask(self, one: Called) -> None:
        self._answers[one] = await ask(one, within_seconds=0.0)
