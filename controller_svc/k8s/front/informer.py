"""All adaptations of the served namespaces in memory, kept current by one watch.

Whoever asks is answered from here, and any number of watchers follow an adaptation without asking
the API server for anything. What this process has written itself is put in at once, so that who
wrote sees it. Nothing is here that another replica lacks but for a moment: a name that is not here
is asked for.

Events may come late or twice: of two states of an object the one of the higher version counts, and
one that was deleted does not come back, as its uid never does. What this process wrote while its
watch was broken, and was deleted before that was open again, the watch never knew: `check` finds
it.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, cast

import structlog

from controller_svc.adaptations import Name, View, not_found, stopping
from controller_svc.broadcast import Broadcast
from controller_svc.core import AdaptationState
from controller_svc.k8s.api import ADAPTATIONS, ClusterApi
from controller_svc.k8s.front.adaptation_objects import (
    Identity,
    Metadata,
    metadata_of,
    read_object,
    view_of,
)
from controller_svc.k8s.source import Seen
from seal.errors import PreconditionFailed, SealError
from seal.metrics import metrics
from seal.settings import AdaptationSpec
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

MAX_GRAVES = 10_000
"""Deleted objects of which late news is known as such."""
CHECK_SECONDS = 300.0
"""Between two looks whether a deletion was missed."""
MAX_SPECS = 1024
"""Specs that are kept read; the others are read again when they are asked for."""
MAX_SPEC_DOCUMENTS = 16_384
"""Documents of all specs that are kept read: each takes a kilobyte, and a spec may name 1,000."""


@dataclass
class Entry:
    """One object."""

    metadata: Metadata
    content: bytes
    """The object as JSON, compressed: an ended one is seldom looked at, and a tree takes five times
    as much as JSON, and that three times as much as this."""
    state: AdaptationState | None
    """Where it is; None if it cannot be read."""
    views: Broadcast[View] | None = None
    """For those who watch it; None while nobody has begun to."""
    base_sha256: str = ""
    """Digest of the weights that it is pinned to, once somebody has looked."""

    @property
    def leaving(self) -> bool:
        """It is being deleted: nobody but the deletion sees it any more."""
        return self.metadata.deletion_timestamp is not None


@dataclass
class Informer:
    """The objects by name; belongs to one event loop. The gauge of states follows it."""

    _entries: dict[Name, Entry] = field(default_factory=dict)
    _specs: OrderedDict[str, AdaptationSpec] = field(default_factory=OrderedDict)
    _graves: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _suspended: bool = False
    _listed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        metrics.adaptations.clear()

    def on_event(self, seen: Seen) -> None:
        """What the watch tells."""
        if seen.kind == "DELETED":
            self.remove(Identity.model_validate(seen.body["metadata"]))
        else:
            self.put(seen.body)

    def on_listed(self, namespace: str) -> None:
        """The watch has told all of a namespace."""
        self._listed.add(namespace)

    def is_listed(self, namespace: str) -> bool:
        """Whether all of a namespace is here; of one that the API server refuses nothing is."""
        return namespace in self._listed

    async def keep_checked(self, api: ClusterApi, namespaces: Sequence[str]) -> NoReturn:
        """Look for missed deletions every now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for namespace in namespaces:
                try:
                    await self.check(api, namespace)
                except SealError as error:
                    log.warning("adaptations not checked", namespace=namespace, message=str(error))

    async def check(self, api: ClusterApi, namespace: str) -> None:
        """Compare all of a namespace with what the API server has.

        Raises:
            SealError: it is away, or the namespace is refused.

        """
        known = [metadata for metadata in self.all() if metadata.namespace == namespace]
        listed = set()
        async for page in api.pages(ADAPTATIONS, namespace):
            for body in page:
                self.put(body)
                listed.add(metadata_of(body).uid)
        for metadata in known:
            if metadata.uid not in listed:
                self.remove(metadata)

    def put(self, body: Tree) -> Entry | None:
        """An object as the API server gave it; what counts of it, None if it has gone since."""
        metadata = metadata_of(body)
        known = self._entries.get(metadata.key)
        if metadata.uid in self._graves:
            return None
        if known is not None and metadata.resource_version <= known.metadata.resource_version:
            return known
        entry = Entry(metadata=metadata, content=_content(body), state=None)
        if known is not None and known.metadata.uid != metadata.uid:
            self.remove(known.metadata)
            known = None
        self._adopt(entry, known, body)
        return entry

    def remove(self, metadata: Identity) -> None:
        """An object has gone; whoever watches it is told so."""
        self._graves[metadata.uid] = None
        if len(self._graves) > MAX_GRAVES:
            self._graves.popitem(last=False)
        self._specs.pop(metadata.uid, None)
        entry = self._entries.get(metadata.key)
        if entry is None or entry.metadata.uid != metadata.uid:
            return
        del self._entries[metadata.key]
        _count(entry.state, -1)
        if entry.views is not None:
            entry.views.end(partial(not_found, metadata.key))

    @property
    def entries(self) -> Mapping[Name, Entry]:
        """All by name, also those that are being deleted."""
        return self._entries

    def find(self, name: Name) -> Entry | None:
        """An object of this name, also one that is being deleted."""
        return self._entries.get(name)

    def all(self) -> tuple[Metadata, ...]:
        """What there is."""
        return tuple(entry.metadata for entry in self._entries.values())

    def view(self, entry: Entry) -> View:
        """What callers see of it.

        Raises:
            PreconditionFailed: it cannot be read.

        """
        return self._view(entry.metadata.uid, json.loads(zlib.decompress(entry.content)))

    def follow(self, entry: Entry) -> Broadcast[View]:
        """What it looks like, for all who watch it.

        Raises:
            PreconditionFailed: it cannot be read.

        """
        if entry.views is None:
            entry.views = Broadcast(self.view(entry))
            if self._suspended:
                entry.views.end(stopping)
        return entry.views

    def suspend(self) -> None:
        """End all watches: this process is about to end."""
        self._suspended = True
        for entry in self._entries.values():
            if entry.views is not None:
                entry.views.end(stopping)

    def _view(self, uid: str, body: Tree) -> View:
        return view_of(body, self._spec(uid, body))

    def _adopt(self, entry: Entry, known: Entry | None, body: Tree) -> None:
        """The newest state of an object."""
        if known is not None:
            entry.views, entry.base_sha256 = known.views, known.base_sha256
            _count(known.state, -1)
        try:
            view = self._view(entry.metadata.uid, body)
        except PreconditionFailed as error:
            log.warning("adaptation left out", name=entry.metadata.name, message=str(error))
        else:
            entry.state = view.state
            if entry.views is not None:
                entry.views.set(view)
        _count(entry.state, 1)
        self._entries[entry.metadata.key] = entry
        if entry.views is not None and entry.leaving:
            entry.views.end(partial(not_found, entry.metadata.key))

    def _spec(self, uid: str, body: Tree) -> AdaptationSpec:
        """Its spec, which never changes."""
        spec = self._specs.get(uid)
        if spec is None:
            spec = self._specs[uid] = read_object(body)[0]
            while len(self._specs) > MAX_SPECS or self._documents_read() > MAX_SPEC_DOCUMENTS:
                self._specs.popitem(last=False)
        else:
            self._specs.move_to_end(uid)
        return spec

    def _documents_read(self) -> int:
        return sum(len(spec.data.documents) for spec in self._specs.values())


def _content(body: Tree) -> bytes:
    """The object without what says which client wrote which field."""
    metadata = dict(cast("Tree", body["metadata"]))
    metadata.pop("managedFields", None)
    return zlib.compress(json.dumps(body | {"metadata": metadata}).encode(), 1)


def _count(state: AdaptationState | None, change: int) -> None:
    if state is not None:
        metrics.adaptations.labels(state=str(state)).inc(change)
