"""Making the object of a request: once, however often it is sent, and to whichever replica.

    adaptations/requests/{digest}.json   which adaptation a request id stands for
    adaptations/made/{request}.json      the object that was made for it
    adaptations/disputed/{uid}.json      whether an object stays that two tries differ on

A request is noted before its object is made, under a name that follows from it, so that of all
tries the API server lets one make it; the others find it. That it was made is noted before anybody
is told so. An object that is noted and not there was deleted, by whomever, and a late try of its
request brings nothing back. One whose documents went while it was made is taken back, unnoted,
unless another try has found it first and its documents there.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from controller_svc.adaptations import FOLDER, Name, RequestKey, file_deleted, given_files
from controller_svc.k8s.api import ADAPTATIONS, ClusterApi
from controller_svc.k8s.front.adaptation_objects import Metadata, metadata_of, submitted_object
from controller_svc.k8s.front.documents import Documents
from controller_svc.requests import (
    RequestRecord,
    check_same_body,
    find_request,
    name_taken,
    note_request,
    was_deleted,
)
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, Transient
from seal.records import Record
from seal.resources import Adaptation
from seal.rpc.hops import current_hop
from seal.runs.store import in_thread
from seal.settings.cluster import AdaptationClusterSettings
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)


class MadeRecord(Record):
    """That a request has made its object."""

    name: str
    """Of the object."""
    uid: str
    """Of the object."""


class DisputeRecord(Record):
    """What becomes of an object that one try wants to take back, or another has found."""

    stays: bool
    """False: it is taken back."""


class Making:
    """Makes the objects of requests."""

    def __init__(
        self,
        api: ClusterApi,
        store: ArtifactStore,
        documents: Documents,
        cluster: AdaptationClusterSettings,
    ) -> None:
        """`cluster`: what every object gets beside what was asked for."""
        self._api, self._store, self._documents = api, store, documents
        self._cluster = cluster

    async def find(self, key: RequestKey, body_sha256: str) -> MadeRecord | None:
        """What a request has made; None if it has not yet.

        Raises:
            Conflict: the request's id stands for another body.

        """
        record = await in_thread(find_request, self._store, key)
        if record is None:
            return None
        check_same_body(record, body_sha256)
        return await in_thread(self._made, record)

    async def make(
        self, manifest: Adaptation, key: RequestKey, body_sha256: str
    ) -> tuple[Tree, bool]:
        """The object of a request, made unless it is there; whether this call has made it.

        Raises:
            Conflict: the request's id stands for another body, what it made was deleted, or the
                name is another's.
            Transient: one of that name is being deleted, or a document was.

        """
        name = (manifest.namespace, manifest.name)
        await self._check_name(name, key)
        record = await in_thread(
            note_request, self._store, key, name=manifest.name, body_sha256=body_sha256
        )
        check_same_body(record, body_sha256)
        body, created = await self._create(manifest, record)
        metadata = metadata_of(body)
        await self._check_first(metadata, record, await in_thread(self._made, record))
        stays = await self._documents.stay(given_files(manifest.spec))
        # Who has made it may take it back, and who has found it must not be told of it then
        if created != stays and not (await self._decide(metadata, stays=stays)).stays:
            # Its work has begun and ends for want of a document: the next try makes it anew
            await self._take_back(metadata)
            stays = False
        if not stays:
            raise file_deleted()
        await self._settle(metadata, record)
        if created:
            log.info("adaptation accepted", name=name[1], namespace=name[0])
        return body, created

    async def _check_name(self, name: Name, key: RequestKey) -> None:
        """Refuse a name that another adaptation has, before the request is bound to it."""
        try:
            found = await self._api.get(ADAPTATIONS, *name)
        except NotFound:
            return
        _check_own(metadata_of(found), key.uid)

    async def _create(self, manifest: Adaptation, record: RequestRecord) -> tuple[Tree, bool]:
        body = submitted_object(manifest, cluster=self._cluster, request=record, hop=current_hop())
        try:
            return await self._api.create(ADAPTATIONS, manifest.namespace, body), True
        except Conflict:
            name = (manifest.namespace, manifest.name)
            try:
                found = await self._api.get(ADAPTATIONS, *name)
            except NotFound as error:
                raise _leaving(name) from error
        _check_own(metadata_of(found), record.uid)
        return found, False

    async def _settle(self, metadata: Metadata, record: RequestRecord) -> None:
        """Note that a request has made this object."""
        own = MadeRecord(name=metadata.name, uid=metadata.uid)
        made = await in_thread(self._store.create_json, _made_path(record), own)
        await self._check_first(metadata, record, made)

    async def _check_first(
        self, metadata: Metadata, record: RequestRecord, made: MadeRecord | None
    ) -> None:
        """Take an object back if it is the second that its request has made.

        Another replica's was made and deleted between this one's look and its own.
        """
        if made is not None and made.uid != metadata.uid:
            await self._take_back(metadata)
            raise was_deleted(record.name)

    async def _decide(self, metadata: Metadata, *, stays: bool) -> DisputeRecord:
        """Decide what becomes of an object, unless another try has; what counts."""
        path = disputed_path(metadata.uid)
        return await in_thread(self._store.create_json, path, DisputeRecord(stays=stays))

    async def _take_back(self, metadata: Metadata) -> None:
        """Delete an object, unless it has gone, and its name may be another's."""
        with suppress(NotFound, Conflict):
            await self._api.delete(ADAPTATIONS, *metadata.key, uid=metadata.uid)

    def _made(self, record: RequestRecord) -> MadeRecord | None:
        return self._store.find_json(_made_path(record), MadeRecord)


def _check_own(metadata: Metadata, request_uid: str) -> None:
    """Refuse an object that has the name and was not made for this request."""
    if metadata.deletion_timestamp is not None:
        raise _leaving(metadata.key)
    if metadata.request_uid != request_uid:
        raise name_taken(metadata.key)


def _leaving(name: Name) -> Transient:
    return Transient(
        f"an adaptation {name[1]!r} in namespace {name[0]!r} is being deleted",
        remedy="send the same request again",
    )


def disputed_path(uid: str) -> str:
    """Where it is noted whether an object stays; removed with the object."""
    return f"{FOLDER}/disputed/{uid}.json"


def _made_path(record: RequestRecord) -> str:
    return f"{FOLDER}/made/{record.uid}.json"
