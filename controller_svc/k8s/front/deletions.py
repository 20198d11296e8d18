"""Deleting an adaptation: the object with all that it owns first, then what it left in the store.

    adaptations/deleting/{uid}.json   a deletion that has begun: what is to be erased

A deletion is noted before anything is removed, and the note goes last: whatever stops the replica
that began it, any replica ends it (`sweep`), also two of them at once. Nothing is erased before the
object has gone, as its Jobs' pods go before it and write until then, nor before the trainers have
stopped what these pods had asked for.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from controller_svc.adaptations import FOLDER, kept_adapters, stored_files
from controller_svc.erasing import erase_run
from controller_svc.k8s.api import ADAPTATIONS, ClusterApi
from controller_svc.k8s.front.adaptation_objects import given_paths, metadata_of, read_view
from controller_svc.k8s.front.documents import Documents
from controller_svc.k8s.front.making import disputed_path
from controller_svc.k8s.wanted import owner_of, store_name
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Internal, NotFound, SealError
from seal.records import AdapterReference, Record
from seal.runs.cancelled import is_trained, mark_cancelled
from seal.runs.store import in_thread
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
"""Between two looks whether an object has gone."""
SWEEP_SECONDS = 60.0
"""Between two looks for deletions that nobody ends."""
_DELETING = f"{FOLDER}/deleting"


class Tombstone(Record):
    """A deletion that has begun."""

    namespace: str
    name: str
    uid: str
    """Of the object."""
    run: str
    """What its work is called in the store."""
    kept: tuple[AdapterReference, ...]
    """Adapters that are left in the store."""
    files: tuple[str, ...]
    """Documents and questions that this service had stored for it."""


class Deletions:
    """All deletions of one installation, by whichever replica they were begun."""

    def __init__(self, api: ClusterApi, store: ArtifactStore, documents: Documents) -> None:
        self._api, self._store, self._documents = api, store, documents
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def delete(self, body: Tree, *, keep_adapters: bool) -> None:
        """Delete an object to the end; who gives up waiting does not stop it.

        Of two calls at once the first says what is kept.

        Raises:
            PreconditionFailed: which adapters there are cannot be read, and they are to be kept.
            SealError: the API server or the store is away; a later sweep ends it.

        """
        metadata = metadata_of(body)
        tombstone = Tombstone(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            run=store_name(owner_of(ADAPTATIONS, body)),
            kept=kept_adapters(read_view(body).status) if keep_adapters else (),
            files=stored_files(given_paths(body)),
        )
        path = _grave(metadata.uid)
        counted = await in_thread(self._store.create_json, path, tombstone)
        await asyncio.shield(self._begin(counted))

    async def sweep(self) -> None:
        """Go on with all deletions that have begun, in the background.

        One whose note is damaged is left out, with a line in the log: the others go on.

        Raises:
            SealError: the store is away.

        """
        for path in await in_thread(self._store.list, _DELETING):
            try:
                tombstone = await in_thread(self._store.read_json, path, Tombstone)
            except NotFound:
                continue  # another replica has ended it
            except Internal as error:
                log.error("deletion left out", path=path, message=str(error))
                continue
            self._begin(tombstone)

    async def keep_swept(self) -> NoReturn:
        """Sweep at once, and every now and then, until it is cancelled."""
        while True:
            try:
                await self.sweep()
            except SealError as error:
                log.warning("deletions not looked for", message=str(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def close(self) -> None:
        """Leave what has not ended to other replicas, or to the next start."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, tombstone: Tombstone) -> asyncio.Task[None]:
        """The one task of this process that ends a deletion."""
        task = self._under_way.get(tombstone.uid)
        if task is None:
            name = f"delete {tombstone.run}"
            task = self._under_way[tombstone.uid] = asyncio.create_task(
                self._finish(tombstone), name=name
            )
            task.add_done_callback(lambda ended: self._ended(tombstone, ended))
        return task

    def _ended(self, tombstone: Tombstone, task: asyncio.Task[None]) -> None:
        del self._under_way[tombstone.uid]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("adaptation not deleted", run=tombstone.run, message=str(error))

    async def _finish(self, tombstone: Tombstone) -> None:
        there = await self._delete_object(tombstone)
        await mark_cancelled(self._store, tombstone.run)
        while there or await is_trained(self._store, tombstone.run):
            await asyncio.sleep(LOOK_SECONDS)
            there = there and await self._delete_object(tombstone)
        await in_thread(erase_run, self._store, tombstone.run, kept=tombstone.kept)
        if files := stored_files(tombstone.files):
            await self._documents.remove(files)
        await in_thread(self._store.remove, disputed_path(tombstone.uid))
        await in_thread(self._store.remove, _grave(tombstone.uid))
        log.info("adaptation deleted", run=tombstone.run, kept_adapters=len(tombstone.kept))

    async def _delete_object(self, tombstone: Tombstone) -> bool:
        """Delete the object, unless somebody has; whether it is still there."""
        namespace, name, uid = tombstone.namespace, tombstone.name, tombstone.uid
        try:
            metadata = metadata_of(await self._api.get(ADAPTATIONS, namespace, name))
            if metadata.uid != uid:
                return False  # the name is another's by now
            if metadata.deletion_timestamp is None:
                await self._api.delete(ADAPTATIONS, namespace, name, uid=uid)
        except NotFound:
            return False
        except Conflict as error:
            # It may be another's, but only a look tells: what is there must not be erased
            log.info("deletion refused", run=tombstone.run, cause=str(error))
        return True


def _grave(uid: str) -> str:
    return f"{_DELETING}/{uid}.json"
