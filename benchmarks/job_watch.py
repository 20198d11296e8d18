"""What becomes of the Jobs of a namespace, as a watch sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from controller_svc.k8s.api import JOBS
from controller_svc.k8s.connect import connect
from controller_svc.k8s.jobs import EPOCH_ANNOTATION
from controller_svc.k8s.source import Seen, Watched, watch
from controller_svc.k8s.turn import OWN_JOBS
from seal.errors import Internal, Transient

STALL_SECONDS = 120.0
"""Without news for so long it is given up."""
LOOK_SECONDS = 0.25


def _nothing(name: str) -> None:
    """The default of what is done about a Job."""


@dataclass
class JobWatch:
    """All Jobs since the watch began, by name, with when they were seen (monotonic seconds)."""

    on_create: Callable[[str], None] = _nothing
    on_complete: Callable[[str], None] = _nothing
    created: dict[str, float] = field(default_factory=dict)
    completed: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    """Turn of the controller that created it."""
    failed: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first that was created to the last that completed."""
        return max(self.completed.values()) - min(self.created.values())

    def on_event(self, seen: Seen) -> None:
        """What the watch tells."""
        body: Any = seen.body
        name, now = body["metadata"]["name"], time.monotonic()
        if seen.kind == "DELETED":
            return
        if name not in self.created:
            self.created[name] = now
            annotations = body["metadata"].get("annotations", {})
            self.epochs[name] = int(annotations.get(EPOCH_ANNOTATION, 0))
            self.on_create(name)
        ends = {
            one["type"]
            for one in (body.get("status") or {}).get("conditions", ())
            if one["status"] == "True"
        }
        if "Failed" in ends and name not in self.failed:
            self.failed.append(name)
        if "Complete" in ends and name not in self.completed:
            self.completed[name] = now
            self.on_complete(name)

    async def until(self, done: Callable[[], bool], report: Callable[[int], None]) -> None:
        """Wait for something to come true; `report` is told how many Jobs have completed.

        Raises:
            Internal: a Job has failed.
            Transient: nothing happens any more.

        """
        last, since = -1, time.monotonic()
        while not done():
            if self.failed:
                raise Internal(f"Job {self.failed[0]} has failed")
            news = len(self.completed) + len(self.created)
            if news != last:
                last, since = news, time.monotonic()
            if time.monotonic() - since > STALL_SECONDS:
                raise Transient(f"{len(self.completed)} Jobs have completed, and no more do")
            report(len(self.completed))
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def watching(namespace: str) -> AsyncIterator[JobWatch]:
    """A watch of the controller's Jobs in a namespace, that has begun."""
    jobs, ready = JobWatch(), asyncio.Event()
    async with await connect() as client:
        watched = (Watched(resource=JOBS, labels=OWN_JOBS),)
        follow = partial(watch, watched, [namespace], jobs.on_event, client=client, ready=ready)
        following = asyncio.ensure_future(follow())
        begun = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({following, begun}, return_when=asyncio.FIRST_COMPLETED)
            yield jobs
        finally:
            following.cancel()
            begun.cancel()
            with suppress(asyncio.CancelledError):
                await following
