"""What happens to the objects of a cluster, told as it happens: kopf's watch-streams.

They bring what is hard about watching: a list first, going on where a connection broke, a new list
once the server has forgotten that place (410), and deadlines on both sides, so that a connection of
which only half is left is noticed. Nothing else of kopf is used. Its operator would take over the
process's signals, cancel all tasks of the loop when it ends, and keep a task for each object.

What vanished while no stream was open is told as deleted after the next list, so that whoever keeps
the objects in memory keeps no ghosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, cast

import aiohttp
import kopf
import structlog
from kopf._cogs.clients import auth, errors, watching
from kopf._cogs.structs.credentials import KubeContext, Vault, VaultKey
from kopf._cogs.structs.references import NamespaceName
from kubernetes.aio.client import ApiClient

from controller_svc.core import AttemptBudget
from controller_svc.k8s.api import Resource, name_of
from controller_svc.k8s.connect import session_of
from seal.metrics import metrics
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

EventKind = Literal["LISTED", "ADDED", "MODIFIED", "DELETED"]
AGAIN = AttemptBudget(attempts=1, base_seconds=0.5, max_seconds=10.0)
"""Pauses between two tries of a stream that the server refuses; it never gives up."""
DENIED_AGAIN = AttemptBudget(attempts=1, base_seconds=0.5, max_seconds=60.0)
"""The same where it takes somebody to put it right: each try is four requests, and told."""
_REFUSALS = (
    errors.APIError,
    errors.APISessionClosed,  # kopf's word for some ends of TLS, too
    watching.WatchingError,
    aiohttp.ClientError,
    OSError,  # TimeoutError is one
    ValueError,  # half a line of JSON
    RuntimeError,  # aiohttp, of a connection that closes between two reads
)
"""What a try of a stream may end with."""
_DENIALS = (errors.APIForbiddenError, errors.APINotFoundError)
"""Of these the namespace or the rights in it have gone, or are not there yet."""
_REMEDY = (
    "see that the namespace is there with its Role, or serve it no more (controller.namespaces)"
)
_KEPT = ("name", "namespace", "uid", "labels", "ownerReferences")
"""What is remembered of an object, for the case that its end is not seen."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Objects of one kind that are to be watched."""

    resource: Resource
    labels: str = ""
    """Label selector; empty takes all."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Something that happened to an object."""

    resource: Resource
    kind: EventKind
    """LISTED: it was there when a stream began, which may be again and again."""
    body: Tree
    """As the server gave it; of one whose end was not seen its name, owners and labels alone."""


@dataclass(frozen=True, kw_only=True)
class WatchTimes:
    """How long what may take."""

    stream_seconds: int = 300
    """After so long the server ends a stream, and the next goes on from there."""
    margin_seconds: float = 15.0
    """So much later this side ends it."""
    silence_seconds: float = 70.0
    """A stream without a word for so long is given up: the server says something each minute."""
    request_seconds: float = 60.0
    """Of a list."""
    connect_seconds: float = 5.0
    """Of a connection."""
    list_chunk: int = 500
    """Objects asked for at once."""


async def watch(
    resources: Sequence[Watched],
    namespaces: Sequence[str],
    on_event: Callable[[Seen], None],
    *,
    client: ApiClient,
    ready: asyncio.Event,
    on_listed: Callable[[str], None] = lambda namespace: None,
    times: WatchTimes = WatchTimes(),
) -> NoReturn:
    """Tell all that happens to these objects in these namespaces, until cancelled.

    What is there is told first, and `on_listed` once all of a namespace has been. `ready` is set
    once all namespaces have been listed, but for those that the server refuses: one that was
    deleted does not keep the others waiting, and is taken up whenever it answers. Both functions
    are called on the event loop and must return at once; what they raise ends the watch.
    """
    async with session_of(client) as session:
        login = kopf.AiohttpSession(aiohttp_session=session, server=client.configuration.host)
        auth.vault_var.set(_Login({"client": login}))
        listing = _Listing(resources, namespaces, on_listed=on_listed, ready=ready)
        try:
            async with asyncio.TaskGroup() as group:
                for watched in resources:
                    for namespace in namespaces:
                        stream = _Stream(watched, namespace, on_event, listing, times)
                        group.create_task(stream.run())
        finally:
            # Another controller leads, and what it is refused is its own to say
            metrics.namespace_refused.clear()
    raise AssertionError("a stream has ended without an error")


class _Login(Vault):
    """Credentials that renew themselves: a refusal of them is an error like any other."""

    async def invalidate(
        self, key: VaultKey, info: KubeContext, *, exc: Exception | None = None
    ) -> None:
        """Raise the refusal; kopf's own would wait here for somebody who logs in."""
        if exc is not None:
            raise exc


class _Listing:
    """Which namespaces have been listed, with all kinds of objects."""

    def __init__(
        self,
        resources: Sequence[Watched],
        namespaces: Sequence[str],
        *,
        on_listed: Callable[[str], None],
        ready: asyncio.Event,
    ) -> None:
        self._on_listed, self._ready = on_listed, ready
        self._all, self._denied = frozenset(namespaces), set[str]()
        self._missing = {namespace: set(resources) for namespace in namespaces}
        self._refused: dict[str, set[Watched]] = {namespace: set() for namespace in namespaces}
        for namespace in namespaces:
            self._measure(namespace)

    def listed(self, namespace: str, watched: Watched) -> None:
        """All objects of a kind have been told, as whenever a stream begins anew."""
        self._refused[namespace].discard(watched)
        self._measure(namespace)
        if (missing := self._missing.get(namespace)) is None:
            return
        missing.discard(watched)
        if not missing:
            del self._missing[namespace]
            log.info("namespace listed", namespace=namespace)
            self._on_listed(namespace)
        self._decide()

    def denied(self, namespace: str, watched: Watched, cause: str) -> None:
        """The server refuses to list objects; nothing is new in one that was listed before."""
        self._refused[namespace].add(watched)
        self._measure(namespace)
        if namespace in self._missing:
            log.error("namespace not served", namespace=namespace, cause=cause, remedy=_REMEDY)
            self._denied.add(namespace)
            self._decide()

    def _measure(self, namespace: str) -> None:
        refused = bool(self._refused[namespace])
        metrics.namespace_refused.labels(namespace=namespace).set(refused)

    def _decide(self) -> None:
        """Where every namespace is refused it is no namespace's fault."""
        if self._missing.keys() <= self._denied and self._missing.keys() < self._all:
            self._ready.set()


class _Stream:
    """All that happens to the objects of one kind in one namespace."""

    def __init__(
        self,
        watched: Watched,
        namespace: str,
        on_event: Callable[[Seen], None],
        listing: _Listing,
        times: WatchTimes,
    ) -> None:
        self._watched, self._namespace, self._on_event = watched, namespace, on_event
        self._listing = listing
        group, _, version = watched.resource.api_version.rpartition("/")
        self._resource = kopf.Resource(group, version, watched.resource.plural, namespaced=True)
        self._settings = _settings(watched.labels, times)
        self._known: dict[str, Tree] = {}
        self._found: dict[str, Tree] = {}

    async def run(self) -> NoReturn:
        """List and watch, again and again."""
        what = f"{self._watched.resource.plural} in {self._namespace}"
        refused = 0
        while True:
            self._found, again = {}, AGAIN
            try:
                async for event in self._events():
                    self._take(event)
                    refused = 0
            except _REFUSALS as error:
                refused += 1
                cause = f"{type(error).__name__}: {error}"
                log.warning("watch refused", what=what, cause=cause)
                if isinstance(error, _DENIALS):
                    again = DENIED_AGAIN
                    self._listing.denied(self._namespace, self._watched, cause)
            # A stream that ended in order has only lost its place (410): it is listed anew soon
            name = f"{what} {refused}"
            await asyncio.sleep(again.delay_seconds(name=name, attempt=max(refused, 1) + 1))

    def _events(self) -> AsyncIterator[watching.Bookmark | kopf.RawEvent]:
        """One list, and what happens from there on for as long as the server knows the place."""
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return watching.continuous_watch(
            settings=self._settings,
            resource=self._resource,
            namespace=NamespaceName(self._namespace),
            operator_pause_waiter=never,
        )

    def _take(self, event: watching.Bookmark | kopf.RawEvent) -> None:
        if isinstance(event, watching.Bookmark):
            self._end_of_list()
            return
        type, body = cast("str | None", event["type"]), cast("Tree", event["object"])
        if type == "BOOKMARK":
            return
        name = name_of(body)
        if type is None:
            # Known at once: the list may break off, and the next have it no more
            self._known[name] = self._found[name] = _kept(body)
        elif type == "DELETED":
            self._known.pop(name, None)
        else:
            self._known[name] = _kept(body)
        self._tell(cast("EventKind", type or "LISTED"), body)

    def _end_of_list(self) -> None:
        """What is known and was not listed has gone unseen."""
        gone = [self._known[name] for name in self._known.keys() - self._found.keys()]
        self._known, self._found = self._found, {}
        for body in gone:
            self._tell("DELETED", body)
        self._listing.listed(self._namespace, self._watched)

    def _tell(self, kind: EventKind, body: Tree) -> None:
        self._on_event(Seen(resource=self._watched.resource, kind=kind, body=body))


def _kept(body: Tree) -> Tree:
    metadata = cast("Tree", body["metadata"])
    return {"metadata": {name: metadata[name] for name in _KEPT if name in metadata}}


def _settings(labels: str, times: WatchTimes) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = times.stream_seconds
    settings.watching.client_timeout = times.stream_seconds + times.margin_seconds
    settings.watching.inactivity_timeout = times.silence_seconds
    settings.watching.connect_timeout = times.connect_seconds
    settings.watching.chunk_size = times.list_chunk
    settings.networking.request_timeout = times.request_seconds
    settings.networking.connect_timeout = times.connect_seconds
    settings.networking.error_backoffs = (0.5, 1, 2)
    if labels:
        settings.watching.label_selectors[kopf.EVERYTHING] = labels
    return settings
