"""Posts Events beside the looks: none waits for an Event, and none fails for one.

Events are for people, and best effort as those of Kubernetes' own controllers: nothing rests on
them, and the conditions say where an object is. Those of an object are posted in the order in which
they were handed in; one that the server does not take just now is tried again a few times, and only
what follows of its own object waits for it.

A thousand runs at work would post some fifty a second, a tenth of what the server does for them. So
there is a pause between two posts, and of an object that is a step further while its last step
waits one Event tells both. All else stands for itself; objects with a warning wait for no others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, cast

import structlog

from controller_svc.k8s.api import EVENTS, ClusterApi, is_of_server, name_of
from controller_svc.k8s.queue import Workers
from seal.errors import Conflict, SealError, Transient
from seal.metrics import metrics
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

MAX_WAITING = 4096
"""Of all objects together, a few KiB each: what is handed in beyond it is dropped."""
MAX_KNOWN = 4096
"""Names of Events that wait or are there. A controller that leads again tells of all objects anew:
what is known is not asked of a server that may just be too busy to renew a lease."""
MAX_TRIES = 8
"""Of one Event. With the queue's pauses that is most of a minute, as a server's restart takes."""
PAUSE_SECONDS = 0.1
"""Between two posts: no burden for a server, and nobody notices where little is told."""
AHEAD_SECONDS = 3600.0
"""An object with a warning is due as if it had waited for so long."""
MAX_MESSAGE_BYTES = 1024
"""Of steps that are told together."""
WARNING = "Warning"
"""Type of an Event."""
FLUSH_SECONDS = 2.0
"""For what still waits when the process ends."""


class EventOutcome(StrEnum):
    """What becomes of an Event."""

    POSTED = "posted"
    """It is there, whoever posted it."""
    REFUSED = "refused"
    """The server does not take it, or not after some tries."""
    JOINED = "joined"
    """The next Event of its object tells it, too."""
    DROPPED = "dropped"
    """Too many waited, or the process has ended."""


@dataclass
class _Waiting:
    event: Tree
    step: bool
    tries: int = 0

    @property
    def warns(self) -> bool:
        """Whether somebody may have to do something."""
        return self.event.get("type") == WARNING

    def join(self, event: Tree) -> bool:
        """Let the next step tell this one, too; not if this one was sent, and may be there."""
        message = f"{self.event['message']}; then {event['message']}"
        if not self.step or self.tries or len(message.encode()) > MAX_MESSAGE_BYTES:
            return False
        self.event = event | {"message": message}
        return True


class EventPost:
    """The Events that wait, and who posts them: one after another."""

    def __init__(self, api: ClusterApi, *, max_waiting: int = MAX_WAITING) -> None:
        self._api, self._max_waiting = api, max_waiting
        self._lines: dict[str, deque[_Waiting]] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._count, self._full = 0, False
        self._not_before = 0.0
        self._workers: Workers[str] = Workers(self._post_next, self._on_failure, count=1)

    def __len__(self) -> int:
        """Events that wait."""
        return self._count

    def hand_in(self, event: Tree, *, step: bool = False) -> None:
        """Let an Event be posted, unless it was; it is dropped if too many wait.

        `step`: it says where its object is, so that the next step may tell both.
        """
        if name_of(event) in self._known:
            return
        uid = str(cast("Tree", event["involvedObject"])["uid"])
        if step and uid in self._lines and self._lines[uid][-1].join(event):
            self._know(name_of(event))
            _count(EventOutcome.JOINED)
            return
        if self._count >= self._max_waiting:
            _count(EventOutcome.DROPPED)
            if not self._full:
                log.warning("events are dropped: too many wait", waiting=self._count)
            self._full = True
            return
        self._lines.setdefault(uid, deque()).append(_Waiting(event, step))
        self._count += 1
        self._know(name_of(event))
        self._workers.add(uid, after_seconds=self._due_seconds(uid))

    async def run(self) -> NoReturn:
        """Post until cancelled."""
        await self._workers.run()

    async def flush(self) -> None:
        """Try all that wait once more, also those that pause."""
        for uid in list(self._lines):
            with suppress(SealError):
                while uid in self._lines:
                    await self._post_first(uid)

    def give_up(self) -> None:
        """Drop what still waits."""
        if self._count:
            log.warning("events are dropped: the process ends", waiting=self._count)
            _count(EventOutcome.DROPPED, self._count)
        self._lines.clear()
        self._count = 0

    async def _post_next(self, uid: str) -> float | None:
        """Post the oldest of an object, after the pause; more of it may be joined meanwhile."""
        await asyncio.sleep(self._not_before - time.monotonic())
        self._not_before = time.monotonic() + PAUSE_SECONDS
        return await self._post_first(uid)

    async def _post_first(self, uid: str) -> float | None:
        """Post the oldest of an object; when to post the next, if more of it wait.

        Raises:
            SealError: the server does not take it just now.

        """
        if uid not in self._lines:
            return None  # a defect has ended its last one, and the queue's pause after it
        first, outcome = self._lines[uid][0], EventOutcome.POSTED
        first.tries += 1
        namespace = str(cast("Tree", first.event["metadata"])["namespace"])
        try:
            await self._api.create(EVENTS, namespace, first.event)
        except Conflict:
            pass  # it was posted before, or the reply to it was lost
        except SealError as error:
            if first.tries < MAX_TRIES and (isinstance(error, Transient) or is_of_server(error)):
                raise
            outcome = EventOutcome.REFUSED
            log.info("event not posted", reason=first.event["reason"], cause=str(error))
        self._leave(uid, outcome)
        return self._due_seconds(uid) if uid in self._lines else None

    def _due_seconds(self, uid: str) -> float:
        """When an object is to have its turn."""
        return -AHEAD_SECONDS if any(one.warns for one in self._lines[uid]) else 0.0

    def _on_failure(self, uid: str, error: Exception) -> float | None:
        """One that is to be tried again stays where it is, one that a defect keeps does not."""
        if isinstance(error, SealError):
            return error.retry_after_seconds
        log.error("event not posted", exc_info=error)
        self._leave(uid, EventOutcome.REFUSED)
        return None

    def _leave(self, uid: str, outcome: EventOutcome) -> None:
        line = self._lines[uid]
        left = line.popleft()
        if outcome is EventOutcome.REFUSED:
            self._known.pop(name_of(left.event), None)
        if not line:
            del self._lines[uid]
        self._count -= 1
        self._full = self._full and bool(self._count)
        _count(outcome)

    def _know(self, name: str) -> None:
        self._known[name] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def _count(outcome: EventOutcome, number: int = 1) -> None:
    metrics.events.labels(outcome=outcome).inc(number)


@asynccontextmanager
async def posting(api: ClusterApi) -> AsyncIterator[EventPost]:
    """Events that are handed in within the block are posted, and a little after it those left."""
    post = EventPost(api)
    working = asyncio.create_task(post.run())
    try:
        yield post
    finally:
        working.cancel()
        await asyncio.wait({working})
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await post.flush()
        post.give_up()
