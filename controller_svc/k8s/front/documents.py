"""Which documents in the store may go, where any replica may be giving one to an adaptation.

    adaptations/erasing/{random}.json  a replica is removing documents: which

A document may be several adaptations', of any replica's making. Whoever removes some notes so, and
then looks who was given them; whoever makes an adaptation looks for such a note once the object is
there (`stay`). Whatever the order, one of them sees the other.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence

from controller_svc.adaptations import FOLDER
from controller_svc.k8s.api import ADAPTATIONS, ClusterApi
from controller_svc.k8s.front.adaptation_objects import given_paths
from controller_svc.uploads import old_uploads
from seal.artifacts import ArtifactStore
from seal.errors import NotFound, Transient
from seal.records import Record
from seal.runs.store import in_thread

PATIENCE_SECONDS = 5.0
"""How long who makes an adaptation waits for who removes its documents."""
LOOK_SECONDS = 0.2
"""Between two looks meanwhile."""
REMOVING_SECONDS = 30.0
"""Longest removal."""
STALE_SECONDS = 4 * REMOVING_SECONDS
"""A note of this age is that of a killed replica."""
_ERASING = f"{FOLDER}/erasing"


class Erasing(Record):
    """Documents that a replica is removing."""

    files: tuple[str, ...]


class Documents:
    """The documents of one installation; belongs to one event loop."""

    def __init__(self, api: ClusterApi, store: ArtifactStore, *, namespaces: Sequence[str]) -> None:
        """`namespaces`: all in which an adaptation may have been given a document of the store."""
        self._api, self._store, self._namespaces = api, store, namespaces
        self._doomed: set[str] = set()
        self._removing = asyncio.Lock()

    async def stay(self, paths: Collection[str]) -> bool:
        """Whether documents are there, and nobody removes one; asked once their object is there.

        Raises:
            SealError: the store is away.

        """
        waited = 0.0
        while not (await self._being_removed()).isdisjoint(paths):
            if waited >= PATIENCE_SECONDS:
                return False
            await asyncio.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        return await in_thread(lambda: all(map(self._store.exists, paths)))

    async def remove(self, paths: Collection[str]) -> None:
        """Remove those that no adaptation was given.

        Of many calls at once those that wait share the next look at who was given what.

        Raises:
            SealError: the API server or the store is away.

        """
        self._doomed.update(paths)
        async with self._removing:
            if self._doomed.isdisjoint(paths):
                return  # who had the turn before has seen to them
            doomed, self._doomed = self._doomed, set()
            try:
                async with asyncio.timeout(REMOVING_SECONDS):
                    await self._remove(doomed)
            except TimeoutError as error:
                self._doomed |= doomed
                raise Transient(f"documents not removed within {REMOVING_SECONDS:g} s") from error
            except BaseException:
                self._doomed |= doomed
                raise

    async def sweep_uploads(self, older_than_seconds: float) -> int:
        """Remove uploads of this age that no adaptation was given; how many there were.

        Raises:
            SealError: the API server or the store is away.

        """
        old = await in_thread(old_uploads, self._store, older_than_seconds=older_than_seconds)
        unused = set(old) - await self._given()
        if unused:
            await self.remove(unused)
        return len(unused)

    async def _remove(self, doomed: Collection[str]) -> None:
        note = f"{_ERASING}/{secrets.token_hex(16)}.json"
        await in_thread(self._store.create_json, note, Erasing(files=tuple(sorted(doomed))))
        try:
            for path in sorted(set(doomed) - await self._given()):
                await in_thread(self._store.remove, path)
        finally:
            await in_thread(self._store.remove, note)

    async def _given(self) -> set[str]:
        """What all adaptations were given that there are at this moment, and maybe some more."""
        given: set[str] = set()
        for namespace in self._namespaces:
            async for page in self._api.pages(ADAPTATIONS, namespace):
                given.update(*map(given_paths, page))
        return given

    async def _being_removed(self) -> set[str]:
        """What any replica is removing."""
        found: set[str] = set()
        for path in await in_thread(self._store.list, _ERASING):
            try:
                if await in_thread(self._store.age_seconds, path) >= STALE_SECONDS:
                    await in_thread(self._store.remove, path)
                else:
                    found |= set((await in_thread(self._store.read_json, path, Erasing)).files)
            except NotFound:
                continue  # it has ended
        return found
