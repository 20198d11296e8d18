"""A controller's turn: from the moment that it leads, all objects are looked after.

What happens to objects and to their Jobs brings them to the queue; so do their own wishes for
another look. A turn ends with the lease: at once, wherever each look may be.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, Protocol, cast

import structlog

from controller_svc.k8s.api import ADAPTATIONS, JOBS, RUNS
from controller_svc.k8s.controller import Controller, Key
from controller_svc.k8s.news import News
from controller_svc.k8s.queue import Workers
from controller_svc.k8s.shared_reads import SharedReads
from controller_svc.k8s.source import Seen, Watched
from controller_svc.k8s.wanted import kind_of
from seal.errors import Retryable, SealError
from seal.metrics import metrics
from seal.resources import API_VERSION
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

OWN_JOBS = "app.kubernetes.io/managed-by=seal-controller"
WATCHED = (
    Watched(resource=RUNS),
    Watched(resource=ADAPTATIONS),
    Watched(resource=JOBS, labels=OWN_JOBS),
)
_KINDS = {kind_of(resource): resource for resource in (RUNS, ADAPTATIONS)}


class Watch(Protocol):
    """Whoever tells what happens to objects, as `source.watch` does."""

    def __call__(
        self,
        resources: Sequence[Watched],
        namespaces: Sequence[str],
        on_event: Callable[[Seen], None],
        *,
        ready: asyncio.Event,
        on_listed: Callable[[str], None],
    ) -> Awaitable[None]:
        """Tell it until cancelled."""


class Turn:
    """One turn of a controller."""

    def __init__(
        self,
        controller: Controller,
        *,
        watch: Watch,
        namespaces: Sequence[str],
        workers: int,
        reads: SharedReads | None = None,
    ) -> None:
        """`reads`: what the controller reads through, and is told what happens; None if nothing."""
        self._controller, self._watch, self._namespaces = controller, watch, namespaces
        self._reads, self._news = reads, News()
        self._workers: Workers[Key] = Workers(self._look, _on_failure, count=workers)
        self._listed: set[str] = set()
        self._held: defaultdict[str, set[Key]] = defaultdict(set)
        """Objects of namespaces of which not all has been seen."""
        self.ready = asyncio.Event()
        """All that there is has been seen, but for namespaces that the API server refuses."""

    async def run(self) -> NoReturn:
        """Look after all objects until cancelled."""
        metrics.controller_queue_length.set_function(lambda: len(self._workers))
        try:
            async with asyncio.TaskGroup() as group:
                watching = self._watch(
                    WATCHED,
                    self._namespaces,
                    self._on_event,
                    ready=self.ready,
                    on_listed=self._on_listed,
                )
                group.create_task(_never_ends(watching))
                await self._workers.run()
        finally:
            metrics.controller_queue_length.set_function(lambda: 0)
        raise AssertionError("the workers have ended without an error")

    def _on_event(self, seen: Seen) -> None:
        if self._reads is not None:
            self._reads.see(seen)
        after_seconds = self._news.after_seconds(seen)
        if after_seconds is None or (key := key_of(seen)) is None:
            return
        if key.namespace in self._listed:
            self._workers.add(key, after_seconds=after_seconds)
        else:
            # Before all has been seen, a Job that is there could look as if it were not
            self._held[key.namespace].add(key)

    def _on_listed(self, namespace: str) -> None:
        self._listed.add(namespace)
        for key in self._held.pop(namespace, ()):
            self._workers.add(key)

    async def _look(self, key: Key) -> float | None:
        kind = kind_of(key.resource)
        with (
            structlog.contextvars.bound_contextvars(namespace=key.namespace, object=key.name),
            metrics.reconcile_seconds.labels(kind=kind).time(),
        ):
            again_seconds = await self._controller.reconcile(key)
        metrics.reconciles.labels(kind=kind, result="ok").inc()
        return again_seconds


async def _never_ends(watching: Awaitable[None]) -> NoReturn:
    await watching
    raise AssertionError("the watch has ended without an error")


def key_of(seen: Seen) -> Key | None:
    """The object that something happened to: of a Job its owner; None if it is none of ours."""
    metadata = cast("Tree", seen.body["metadata"])
    namespace = str(metadata["namespace"])
    if seen.resource != JOBS:
        return Key(resource=seen.resource, namespace=namespace, name=str(metadata["name"]))
    for owner in cast("list[Tree]", metadata.get("ownerReferences") or []):
        resource = _KINDS.get(str(owner["kind"]))
        if resource is not None and owner["apiVersion"] == API_VERSION and owner.get("controller"):
            return Key(resource=resource, namespace=namespace, name=str(owner["name"]))
    return None


def _on_failure(key: Key, error: Exception) -> float | None:
    """Say what went wrong at a look; the least pause that was asked for."""
    kind = kind_of(key.resource)
    metrics.reconciles.labels(kind=kind, result="error").inc()
    told = {"kind": kind, "namespace": key.namespace, "name": key.name, "cause": str(error)}
    if isinstance(error, Retryable):
        log.info("looked in vain", **told)
        return error.retry_after_seconds
    if isinstance(error, SealError):
        log.warning("looked in vain", **told)
    else:
        log.error("look crashed", **told, exc_info=error)
    return None
