"""The adaptations of a laptop: objects in the artifact store, each at work in this process.

One process has them, by a lock on the store. What has not ended is taken up by the next start. So
many are at work at once; the others wait in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any
from weakref import WeakValueDictionary

import structlog
from pydantic import Field

from controller_svc.adaptations import (
    FOLDER,
    Name,
    Page,
    Progress,
    RequestKey,
    Submission,
    View,
    file_deleted,
    given_files,
    kept_adapters,
    manifest_of,
    not_found,
    of_another_uid,
    page_of,
    stopping,
)
from controller_svc.changes import Changes
from controller_svc.core import AdaptationState, Phase, RunStatus, adaptation_state
from controller_svc.local.index import Index
from controller_svc.local.live import Live, sweep_up
from controller_svc.local.lock import run_lock, while_held
from controller_svc.local.objects import AdaptationObject, Objects, Saved
from controller_svc.requests import (
    check_same_body,
    find_request,
    name_taken,
    note_request,
    was_deleted,
)
from controller_svc.uploads import (
    SWEEP_SECONDS,
    UNUSED_SECONDS,
    sweep_again_and_again,
    sweep_uploads,
)
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, Internal, NotFound, SealError
from seal.metrics import metrics
from seal.records import AdapterReference
from seal.resources import Adaptation
from seal.rpc.hops import Hop, within
from seal.runs.store import in_thread
from seal.settings import Settings

log = structlog.get_logger(__name__)


class AdaptationSettings(Settings):
    """How a laptop keeps its adaptations."""

    profile: str = "embedded"
    """Where the fields come from that a request leaves out."""
    max_running: int = Field(default=16, ge=0, le=4096)
    """Adaptations at work at once; more wait for their turn, in the order in which they came. 0 is
    for a process that only tells of them, and ends those that are cancelled."""
    max_waiting: int = Field(default=10_000, ge=0)
    """Adaptations that wait; more are refused with RESOURCE_EXHAUSTED."""
    unused_seconds: float = Field(default=UNUSED_SECONDS, ge=0)
    """Age at which an uploaded document is removed that no adaptation has been given."""
    sweep_seconds: float = Field(default=SWEEP_SECONDS, gt=0)
    """Between two looks at such documents; the first is at the start."""
    worker: WorkerSettings = WorkerSettings()
    """How their work uses the services."""


DEFAULT_SETTINGS = AdaptationSettings()
ENDING_SECONDS = 10.0
"""For the ends of what was cancelled, where nothing works at adaptations."""
RETRY_AFTER_SECONDS = 60.0
"""When a caller may ask again who met too many that wait."""


@asynccontextmanager
async def local_adaptations(
    store: ArtifactStore,
    *,
    model: str,
    services: ServiceAddresses,
    settings: AdaptationSettings = DEFAULT_SETTINGS,
) -> AsyncIterator[LocalAdaptations]:
    """Take up all adaptations of a store that have not ended, and keep them for the block.

    `model`: the base model as the services name it.

    Raises:
        Conflict: another process of this machine keeps them.
        Transient: the store's directory was deleted, or its volume taken away, within the block.
        SealError: the store is away.

    """
    with run_lock(store, FOLDER) as lock:
        async with while_held(lock), ServiceClients(services, settings.worker) as clients:
            adaptations = LocalAdaptations(store, model=model, clients=clients, settings=settings)
            try:
                await adaptations.start()
                yield adaptations
            finally:
                await adaptations.close()


class LocalAdaptations:
    """All adaptations of one store; belongs to one event loop."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        model: str,
        clients: ServiceClients,
        settings: AdaptationSettings,
    ) -> None:
        self._store, self._model, self._clients = store, model, clients
        self._settings, self._objects, self._index = settings, Objects(store), Index()
        self._live: dict[Name, Live] = {}
        self._waiting: deque[Name] = deque()
        self._drivers: dict[Name, asyncio.Task[None]] = {}
        self._changes = Changes()
        self._locks: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()
        self._files = asyncio.Lock()
        self._tidying: list[asyncio.Task[None]] = []
        self._closing = False

    async def start(self) -> None:
        """Take up what has not ended, end deletions that had begun, and keep the store tidy.

        Raises:
            SealError: the store is away.

        """
        saved = await in_thread(self._objects.all)
        for one in saved:
            if one.tombstone is None:
                self._take_up(one)
        for one in saved:
            if one.tombstone is not None:
                shared = self._index.files_of_others(one.object.uid)
                await in_thread(self._objects.erase, one.object, one.tombstone, shared=shared)
        self._fill()
        if self._settings.max_running:
            sweeping = sweep_again_and_again(
                self._sweep, pause_seconds=self._settings.sweep_seconds
            )
            unswept = [one for one in saved if _is_unswept(one)]
            self._tidying = [
                asyncio.create_task(sweeping, name="uploads"),
                asyncio.create_task(self._sweep_ended(unswept), name="sweep ended"),
            ]

    def suspend(self) -> None:
        """End all watches: this process is about to end, and the next one goes on."""
        for live in self._live.values():
            live.views.end(stopping)

    async def close(self) -> None:
        """Put aside what is at work, and wait until nothing runs any more."""
        self._closing = True
        self.suspend()
        await self._changes.ended()
        tasks = list(self._drivers.values())
        if tasks and not self._settings.max_running:
            # It drives only ends, and who comes next may be one that only tells as well
            await asyncio.wait(tasks, timeout=ENDING_SECONDS)
        tasks += self._tidying
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def requested(self, key: RequestKey, body_sha256: str) -> View | None:
        """The adaptation that a request has made; None if there is none yet."""
        record = await in_thread(find_request, self._store, key)
        if record is None:
            return None
        check_same_body(record, body_sha256)
        name = (key.namespace, record.name)
        entry = self._index.find(name)
        if entry is not None and entry.uid == record.uid and not entry.leaving:
            return await self._view(name)
        if await in_thread(self._objects.tombstone, record.uid) is not None:
            raise was_deleted(record.name)
        return None

    async def submit(self, submission: Submission) -> tuple[View, bool]:
        """The adaptation of a request, made unless it is there; whether this call has made it."""
        return await self._changes.make(self._submit(submission))

    async def _submit(self, submission: Submission) -> tuple[View, bool]:
        key = submission.key
        name = (key.namespace, submission.name or key.name)
        async with self._lock(name):
            if (view := await self.requested(key, submission.body_sha256)) is not None:
                return view, False
            manifest = manifest_of(submission, profile=self._settings.profile, model=self._model)
            entry = self._index.find(name)
            if entry is not None and entry.uid != key.uid:
                raise name_taken(name)
            has_place = len(self._drivers) < self._settings.max_running
            if not has_place and len(self._waiting) >= self._settings.max_waiting:
                raise Exhausted(
                    f"{len(self._waiting)} adaptations wait already",
                    remedy="send the same request again later",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            record = await in_thread(
                note_request,
                self._store,
                key,
                name=name[1],
                body_sha256=submission.body_sha256,
            )
            check_same_body(record, submission.body_sha256)
            async with self._files:
                await in_thread(self._check_files, manifest)
                one = await in_thread(self._objects.create, manifest, uid=record.uid)
                live = self._wait(one, one.new_status(), cancelled=False)
            metrics.adaptations_submitted.inc()
            log.info("adaptation accepted", run=one.run, name=name[1], namespace=name[0])
            self._fill()
            return live.views.value, True

    async def get(self, namespace: str, name: str) -> View:
        """An adaptation as it is."""
        return await self._view((namespace, name))

    async def list(
        self,
        namespace: str,
        *,
        after: str,
        limit: int,
        states: Collection[AdaptationState],
        name_prefix: str,
    ) -> Page:
        """A page, by name."""
        names, following = page_of(
            self._index.entries,
            namespace,
            after=after,
            limit=limit,
            states=states,
            name_prefix=name_prefix,
        )
        found = await asyncio.gather(*(self._view_if_there(name) for name in names))
        return Page(views=tuple(view for view in found if view is not None), following=following)

    async def _view_if_there(self, name: Name) -> View | None:
        try:
            return await self._view(name)
        except NotFound:
            return None  # deleted meanwhile

    async def watch(self, namespace: str, name: str, *, events: int = 0) -> AsyncIterator[View]:
        """The adaptation as it is, and again whenever it has changed; the last is a final one.

        No other process knows more of it than this one, whatever the number of `events`.
        """
        self._index.entry((namespace, name))
        if (live := self._live.get((namespace, name))) is None:
            yield await self._view((namespace, name))
            return
        async for view in live.views.follow():
            yield view

    async def cancel(self, namespace: str, name: str) -> View:
        """Ask that an adaptation stops; one that has ended stays as it is."""
        return await self._changes.make(self._cancel((namespace, name)))

    async def _cancel(self, name: Name) -> View:
        async with self._lock(name):
            entry, live = self._index.entry(name), self._live.get(name)
            if live is None:
                return await self._view(name)
            await in_thread(self._objects.cancel, entry.uid)
            if self._live.get(name) is not live:
                return await self._view(name)  # it has ended meanwhile
            live.cancel()
            if name not in self._drivers:
                self._end(name)
            log.info("adaptation cancelled", run=live.one.run)
            return live.views.value

    async def delete(self, namespace: str, name: str, *, uid: str, keep_adapters: bool) -> None:
        """Remove an adaptation with its records and adapters; one at work is stopped first."""
        await self._changes.make(self._delete((namespace, name), uid, keep_adapters=keep_adapters))

    async def _delete(self, name: Name, uid: str, *, keep_adapters: bool) -> None:
        async with self._lock(name):
            # One whose deletion failed half-way is found again
            entry = self._index.find(name) or self._index.entry(name)
            if uid and uid != entry.uid:
                raise of_another_uid(name[1])
            one = await in_thread(self._objects.read, name)
            kept: tuple[AdapterReference, ...] = ()
            if keep_adapters:
                kept = kept_adapters(await in_thread(self._objects.status, one))
            tombstone = await in_thread(self._objects.bury, entry.uid, kept=kept)
            entry.leaving = True
            await self._stop(name, one)
            if (live := self._live.pop(name, None)) is not None:
                live.views.end(lambda: not_found(name))
            async with self._files:
                shared = self._index.files_of_others(entry.uid)
                await in_thread(self._objects.erase, one, tombstone, shared=shared)
            self._index.remove(name)
            log.info("adaptation deleted", run=one.run, kept_adapters=len(tombstone.kept))

    async def _stop(self, name: Name, one: AdaptationObject) -> None:
        """End all work on an adaptation, without an end of its own."""
        self._leave_line(name)
        if (task := self._drivers.get(name)) is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._clients.cancel_trainings(one.run)

    def _check_files(self, manifest: Adaptation) -> None:
        """Refuse what was removed with the last adaptation that was given it."""
        if not all(map(self._store.exists, given_files(manifest.spec))):
            raise file_deleted()

    async def _sweep(self) -> int:
        """Remove uploads that have waited for their adaptation in vain; their number."""
        async with self._files:
            if not await in_thread(self._objects.are_known, set(self._index)):
                raise Internal(
                    "what a damaged adaptation was given is not known",
                    remedy="the log of the start names its file: mend or remove it",
                )
            return await in_thread(
                sweep_uploads,
                self._store,
                used=self._index.files_of_others(""),
                older_than_seconds=self._settings.unused_seconds,
            )

    async def _sweep_ended(self, ended: Sequence[Saved]) -> None:
        """Sweep up after those that an earlier process has brought to their end, and no further."""
        for one in ended:
            name = (one.object.namespace, one.object.name)
            async with self._lock(name):
                entry = self._index.find(name)
                if entry is None or entry.uid != one.object.uid or entry.leaving:
                    continue  # deleted meanwhile
                await sweep_up(one.object, one.status, store=self._store, clients=self._clients)

    async def _view(self, name: Name) -> View:
        """An adaptation as it is: from memory while it lives, else from the store.

        One that is deleted meanwhile is not there: what is left of it looks like a new one.
        """
        entry = self._index.entry(name)
        if (live := self._live.get(name)) is not None:
            return live.views.value
        try:
            view = await self._saved_view(name)
        except SealError:
            if not entry.leaving:
                raise
        if entry.leaving:
            raise not_found(name)
        return view

    async def _saved_view(self, name: Name) -> View:
        one = await in_thread(self._objects.read, name)
        status = await in_thread(self._objects.status, one)
        base_sha256 = await in_thread(self._objects.base_sha256, one.run)
        percent = 100.0 if status.phase is Phase.COMPLETE else 0.0
        return one.view(status, base_sha256=base_sha256, progress=Progress(percent=percent))

    def _take_up(self, saved: Saved) -> None:
        """What an earlier process has left."""
        state = adaptation_state(saved.status)
        if state.final:
            self._index.add(saved.object, state)
            return
        live = self._wait(saved.object, saved.status, cancelled=saved.cancelled)
        live.on_prepared(saved.base_sha256)
        model = saved.object.manifest.spec.model
        if self._settings.max_running and model != self._model:
            # Its stages would all be refused, and it would have failed for good
            self._leave_line((saved.object.namespace, saved.object.name))
            log.warning("adaptation waits for its base model", run=live.one.run, model=model)
        if saved.cancelled:
            self._end((saved.object.namespace, saved.object.name))

    def _wait(self, one: AdaptationObject, status: RunStatus, *, cancelled: bool) -> Live:
        """One more that waits for its turn."""
        name = (one.namespace, one.name)
        live = Live(one, status, cancelled=cancelled, moved=lambda state: self._moved(name, state))
        self._index.add(one, adaptation_state(status))
        self._live[name] = live
        self._waiting.append(name)
        return live

    def _leave_line(self, name: Name) -> None:
        if name in self._waiting:
            self._waiting.remove(name)

    def _fill(self) -> None:
        """Give the free places to those that wait longest."""
        while self._waiting and len(self._drivers) < self._settings.max_running:
            self._drive(self._waiting.popleft())

    def _end(self, name: Name) -> None:
        """Let one that is cancelled say so: it needs no place for that."""
        self._leave_line(name)
        self._drive(name)

    def _drive(self, name: Name) -> None:
        if self._closing:
            return
        live = self._live[name]
        work = live.drive(store=self._store, clients=self._clients, settings=self._settings.worker)
        # A context of its own: whoever has set it going, by a call or by its end, is another
        task = self._drivers[name] = asyncio.create_task(
            _belonging(work, live.one.hop), name=f"adaptation {live.one.run}", context=Context()
        )
        task.add_done_callback(lambda _: self._driven(name, live))

    def _driven(self, name: Name, live: Live) -> None:
        """A place is free again."""
        del self._drivers[name]
        if live.status.phase.terminal and self._live.get(name) is live:
            del self._live[name]
            live.views.end()
        if not self._closing:
            self._fill()

    def _moved(self, name: Name, state: AdaptationState) -> None:
        if self._index.move(name, state) and state.final:
            metrics.adaptations_ended.labels(state=str(state)).inc()

    def _lock(self, name: Name) -> asyncio.Lock:
        """One change of an adaptation at a time."""
        return self._locks.setdefault(name, asyncio.Lock())


def _is_unswept(one: Saved) -> bool:
    return one.tombstone is None and one.status.phase.terminal and not one.swept


async def _belonging(work: Coroutine[Any, Any, None], hop: Hop) -> None:
    """Do the work as part of the call that asked for it."""
    with within(hop):
        await work
