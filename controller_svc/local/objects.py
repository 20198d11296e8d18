"""Where a laptop keeps its adaptations, beside what their work leaves in the artifact store.

    adaptations/requests/{digest}.json          which adaptation a request id stands for
    adaptations/objects/{namespace}/{name}.json  the adaptation itself; with it, it exists
    adaptations/cancelled/{uid}                 its owner wishes it to stop
    adaptations/deleted/{uid}.json              it is being, or has been, deleted
    adaptations/files/{sha256}                  documents and questions
    {run}/...                                   its status, records and adapters

Each is created once and never written again. A request is noted before the object is made, so that
a kill in between leaves a request whose next try makes the same object; a deletion is noted before
anything is removed, so that the next start ends it, and a late try of the request brings nothing
back.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from controller_svc.adaptations import (
    FOLDER,
    Name,
    Progress,
    View,
    given_files,
    stored_files,
)
from controller_svc.core import RunStatus, new_status
from controller_svc.erasing import erase_run
from controller_svc.requests import name_taken
from seal.adaptations.names import run_of
from seal.artifacts import ArtifactStore
from seal.errors import Internal
from seal.records import AdapterReference, PreparedRecord, Record
from seal.resources import Adaptation
from seal.rpc.hops import Hop, current_hop
from seal.runs.cleanup import swept_path
from seal.runs.store import prepared_path, status_path

log = structlog.get_logger(__name__)


class AdaptationObject(Record):
    """One adaptation."""

    uid: str
    """Unique for all time."""
    created_seconds: float
    """Unix time at which it was accepted."""
    manifest: Adaptation
    """What is to be done."""
    request_id: str = ""
    """`x-request-id` of the call that asked for it; all calls of its work carry it."""
    traceparent: str = ""
    """Trace of that call; empty without one."""
    tracestate: str = ""

    @property
    def hop(self) -> Hop:
        """What the calls of its work have in common, also after a restart."""
        return Hop(self.request_id or self.uid, self.traceparent, self.tracestate)

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.manifest.namespace

    @property
    def run(self) -> str:
        """What its work is called in the store and by the services."""
        return run_of(self.namespace, self.name, self.uid)

    @property
    def files(self) -> frozenset[str]:
        """Paths of the documents and questions that it was given."""
        return given_files(self.manifest.spec)

    def view(self, status: RunStatus, *, base_sha256: str, progress: Progress) -> View:
        """What callers see of it."""
        return View(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            created_seconds=self.created_seconds,
            spec=self.manifest.spec,
            status=status,
            base_sha256=base_sha256,
            progress=progress,
        )

    def new_status(self) -> RunStatus:
        """Its status before anything has started."""
        return new_status(self.manifest.spec, run=self.run, now_seconds=self.created_seconds)


class Tombstone(Record):
    """A deletion that has begun."""

    kept: tuple[AdapterReference, ...]
    """Adapters that are left in the store."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """An adaptation as an earlier process has left it."""

    object: AdaptationObject
    status: RunStatus
    base_sha256: str
    cancelled: bool
    """Its owner wishes it to stop."""
    tombstone: Tombstone | None
    """Its deletion has begun."""
    swept: bool
    """What only the way to its end needed has been removed."""


class Objects:
    """The objects of one store. All calls block; the caller takes a thread."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    def create(self, manifest: Adaptation, *, uid: str) -> AdaptationObject:
        """Make an adaptation, unless it is there.

        Raises:
            Conflict: another one has its name.

        """
        hop = current_hop()
        own = AdaptationObject(
            uid=uid,
            created_seconds=time.time(),
            manifest=manifest,
            request_id=hop.request_id,
            traceparent=hop.traceparent,
            tracestate=hop.tracestate,
        )
        path = _object_path(own.namespace, own.name)
        counted = self.store.create_json(path, own)
        if counted.uid != uid:
            raise name_taken((own.namespace, own.name))
        return counted

    def read(self, name: Name) -> AdaptationObject:
        """The adaptation of a namespace and name. Raises NotFound."""
        return self.store.read_json(_object_path(*name), AdaptationObject)

    def all(self) -> tuple[Saved, ...]:
        """Every adaptation, in the order in which they were accepted.

        One whose files are damaged is left out, with a line in the log: the others go on.
        """
        found = []
        for path in self.store.list(f"{FOLDER}/objects"):
            try:
                found.append(self._saved(self.store.read_json(path, AdaptationObject)))
            except Internal as error:
                log.error("adaptation left out", path=path, message=str(error))
        return tuple(sorted(found, key=lambda one: (one.object.created_seconds, one.object.uid)))

    def are_known(self, names: Collection[tuple[str, str]]) -> bool:
        """Whether every object, damaged or not, has one of these names."""
        known = {_object_path(*name) for name in names}
        return known.issuperset(self.store.list(f"{FOLDER}/objects"))

    def _saved(self, one: AdaptationObject) -> Saved:
        tombstone = self.tombstone(one.uid)
        return Saved(
            object=one,
            status=self.status(one) if tombstone is None else one.new_status(),
            base_sha256=self.base_sha256(one.run),
            cancelled=self.store.exists(f"{FOLDER}/cancelled/{one.uid}"),
            tombstone=tombstone,
            swept=self.store.exists(swept_path(one.run)),
        )

    def cancel(self, uid: str) -> None:
        """Note that an adaptation is to stop."""
        self.store.create_bytes(f"{FOLDER}/cancelled/{uid}", b"")

    def bury(self, uid: str, *, kept: tuple[AdapterReference, ...]) -> Tombstone:
        """Note that an adaptation is deleted, unless that is noted; the note that counts."""
        return self.store.create_json(_grave(uid), Tombstone(kept=kept))

    def tombstone(self, uid: str) -> Tombstone | None:
        """The note of a deletion; None if there is none."""
        return self.store.find_json(_grave(uid), Tombstone)

    def status(self, one: AdaptationObject) -> RunStatus:
        """The status that was saved last; that of the beginning if none was."""
        return self.store.find_json(status_path(one.run), RunStatus) or one.new_status()

    def base_sha256(self, run: str) -> str:
        """Digest of the weights that an adaptation is pinned to; empty before it is prepared."""
        prepared = self.store.find_json(prepared_path(run), PreparedRecord)
        return prepared.model.base_sha256 if prepared else ""

    def erase(self, one: AdaptationObject, tombstone: Tombstone, *, shared: frozenset[str]) -> None:
        """Remove all of an adaptation that is buried; what is gone already does not matter.

        Nothing of it may be at work. `shared`: files that others were given too.
        """
        erase_run(self.store, one.run, kept=tombstone.kept)
        paths = list(stored_files(one.files - shared))
        # At the very end: until then the next start finds what is left to be removed
        paths += [f"{FOLDER}/cancelled/{one.uid}", _object_path(one.namespace, one.name)]
        for path in paths:
            self.store.remove(path)


def _object_path(namespace: str, name: str) -> str:
    return f"{FOLDER}/objects/{namespace}/{name}.json"


def _grave(uid: str) -> str:
    return f"{FOLDER}/deleted/{uid}.json"
