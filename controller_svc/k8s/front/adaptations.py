"""The adaptations of a cluster: custom resources, which the controller works on.

Any number of replicas keep them side by side, and none has anything in memory that another lacks:
what is to be done stands in the objects, what was asked for and what is being deleted in the
artifact store (`making`, `deletions`). Who asks is answered from one watch (`informer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from typing import cast

import structlog

from controller_svc.adaptations import (
    Name,
    Page,
    RequestKey,
    Submission,
    View,
    manifest_of,
    not_found,
    of_another_uid,
    page_of,
)
from controller_svc.changes import Changes
from controller_svc.core import AdaptationState
from controller_svc.k8s.api import ADAPTATIONS, ClusterApi
from controller_svc.k8s.front.adaptation_objects import metadata_of, read_object, view_of
from controller_svc.k8s.front.deletions import Deletions
from controller_svc.k8s.front.documents import Documents
from controller_svc.k8s.front.informer import Entry, Informer
from controller_svc.k8s.front.making import MadeRecord, Making
from controller_svc.requests import was_deleted
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, Transient
from seal.metrics import metrics
from seal.runs.store import read_prepared
from seal.settings.cluster import AdaptationClusterSettings
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

CANCEL_TRIES = 10
"""Of a cancel that meets another writer each time: the controller writes every few seconds."""
VIEWS_AT_ONCE = 16
"""Of a page: reading one takes a millisecond of this process, and other calls go on in between."""
NOTHING_BESIDE = AdaptationClusterSettings()


class ClusterAdaptations:
    """All adaptations of the served namespaces; belongs to one event loop."""

    def __init__(
        self,
        api: ClusterApi,
        store: ArtifactStore,
        *,
        model: str,
        profile: str,
        namespaces: Sequence[str],
        informer: Informer,
        cluster: AdaptationClusterSettings = NOTHING_BESIDE,
    ) -> None:
        """`model`: the base model as the services name it.

        `profile`: where the fields come from that a request leaves out. `cluster`: what every
        submitted one gets beside its spec.
        """
        self._api, self._store, self._model, self._profile = api, store, model, profile
        self._namespaces, self._informer = tuple(namespaces), informer
        self.documents = Documents(api, store, namespaces=namespaces)
        """The documents that adaptations were given, or are about to be."""
        self.deletions = Deletions(api, store, self.documents)
        """Deletions that have begun, on whichever replica."""
        self._making = Making(api, store, self.documents, cluster)
        self._changes = Changes()

    def suspend(self) -> None:
        """End all watches: this process is about to end, and other replicas go on."""
        self._informer.suspend()

    async def close(self) -> None:
        """Wait for the submits under way; deletions are left to other replicas."""
        self.suspend()
        await self._changes.ended()
        await self.deletions.close()

    async def requested(self, key: RequestKey, body_sha256: str) -> View | None:
        """The adaptation that a request has made; None if there is none yet."""
        self._check_served(key.namespace)
        made = await self._making.find(key, body_sha256)
        return None if made is None else await self._view_made(key.namespace, made)

    async def submit(self, submission: Submission) -> tuple[View, bool]:
        """The adaptation of a request, made unless it is there; whether this call has made it."""
        return await self._changes.make(self._submit(submission))

    async def _submit(self, submission: Submission) -> tuple[View, bool]:
        key = submission.key
        if (view := await self.requested(key, submission.body_sha256)) is not None:
            return view, False
        manifest = manifest_of(submission, profile=self._profile, model=self._model)
        body, created = await self._making.make(manifest, key, submission.body_sha256)
        if created:
            metrics.adaptations_submitted.inc()
        self._informer.put(body)
        made = MadeRecord(name=manifest.name, uid=metadata_of(body).uid)
        return await self._view_made(key.namespace, made), created

    async def get(self, namespace: str, name: str) -> View:
        """An adaptation as it is."""
        return await self._seen(await self._entry((namespace, name)))

    async def list(
        self,
        namespace: str,
        *,
        after: str,
        limit: int,
        states: Collection[AdaptationState],
        name_prefix: str,
    ) -> Page:
        """A page, by name. Raises SealError: the API server is away, or refuses the namespace."""
        self._check_served(namespace)
        if not self._informer.is_listed(namespace):
            await self._informer.check(self._api, namespace)  # a page would be too short
        known = self._informer.entries
        names, following = page_of(
            known, namespace, after=after, limit=limit, states=states, name_prefix=name_prefix
        )
        entries = [known[name] for name in names]
        views: list[View] = []
        for start in range(0, len(entries), VIEWS_AT_ONCE):
            group = entries[start : start + VIEWS_AT_ONCE]
            views += await asyncio.gather(*map(self._seen, group))
        return Page(views=tuple(views), following=following)

    async def watch(self, namespace: str, name: str, *, events: int = 0) -> AsyncIterator[View]:
        """The adaptation as it is, and again whenever it has changed; the last is a final one."""
        entry = await self._entry((namespace, name))
        if len(self._informer.follow(entry).value.events) < events:
            # Another replica has told of what this one's watch has not brought yet
            entry = await self._newest((namespace, name))
        async for view in self._informer.follow(entry).follow():
            yield view
            if view.state.final:
                return

    async def cancel(self, namespace: str, name: str) -> View:
        """Ask that an adaptation stops; one that has ended stays as it is."""
        self._check_served(namespace)
        for _ in range(CANCEL_TRIES):
            try:
                body = await self._cancelled((namespace, name))
            except Conflict:
                continue  # it got on meanwhile
            entry = self._informer.put(body)
            if entry is None or entry.leaving:
                raise not_found((namespace, name))
            return await self._seen(entry)
        raise Transient(f"adaptation {name!r} changes all the time", remedy="cancel it again")

    async def delete(self, namespace: str, name: str, *, uid: str, keep_adapters: bool) -> None:
        """Remove an adaptation with its records and adapters; one at work is stopped first."""
        self._check_served(namespace)
        body = await self._read((namespace, name))
        metadata = metadata_of(body)
        if uid and uid != metadata.uid:
            raise of_another_uid(name)
        await self.deletions.delete(body, keep_adapters=keep_adapters)
        self._informer.remove(metadata)

    async def _cancelled(self, name: Name) -> Tree:
        """The object with the wish that it stops, unless it has that or has ended.

        Raises:
            Conflict: somebody has written it since it was read.

        """
        body = await self._read(name)
        spec, cancelled = read_object(body)
        if cancelled or view_of(body, spec).state.final:
            return body
        wish = cast("Tree", body["spec"]) | {"cancelled": True}
        try:
            body = await self._api.replace(ADAPTATIONS, name[0], body | {"spec": wish})
        except NotFound as error:
            raise not_found(name) from error
        log.info("adaptation cancelled", name=name[1], namespace=name[0])
        return body

    async def _view_made(self, namespace: str, made: MadeRecord) -> View:
        """What a request has made, if that is still there."""
        try:
            return await self._seen(await self._entry((namespace, made.name), uid=made.uid))
        except NotFound as error:
            raise was_deleted(made.name) from error

    async def _entry(self, name: Name, *, uid: str = "") -> Entry:
        """An adaptation, from memory if it is there; of several of one name that of the uid.

        Raises:
            NotFound: there is none.

        """
        self._check_served(name[0])
        entry = self._informer.find(name)
        if entry is not None and _is_meant(entry, uid):
            return entry
        # Another replica may have made it a moment ago
        return await self._newest(name, uid=uid)

    async def _newest(self, name: Name, *, uid: str = "") -> Entry:
        """An adaptation as the API server has it now. Raises NotFound as `_entry`."""
        entry = self._informer.put(await self._read(name))
        if entry is None or not _is_meant(entry, uid):
            raise not_found(name)
        return entry

    async def _read(self, name: Name) -> Tree:
        """An object as the API server has it now, also one that is being deleted."""
        try:
            return await self._api.get(ADAPTATIONS, *name)
        except NotFound as error:
            raise not_found(name) from error

    async def _seen(self, entry: Entry) -> View:
        """What callers see, with the weights that the adaptation is pinned to."""
        view = self._informer.view(entry)
        adapted = view.status.adaptation
        if not entry.base_sha256 and adapted is not None and adapted.prepared is not None:
            prepared = await read_prepared(self._store, view.status.run)
            entry.base_sha256 = prepared.model.base_sha256 if prepared is not None else ""
        return replace(view, base_sha256=entry.base_sha256)

    def _check_served(self, namespace: str) -> None:
        if namespace not in self._namespaces:
            raise NotFound(
                f"namespace {namespace!r} is not served here",
                field="namespace",
                remedy="give one of: " + ", ".join(self._namespaces),
            )


def _is_meant(entry: Entry, uid: str) -> bool:
    """Whether it is not leaving, and is the one of the uid, if one is given."""
    return not entry.leaving and uid in ("", entry.metadata.uid)
