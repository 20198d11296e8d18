"""One adaptation that has not ended, and its way to the end in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from controller_svc.adaptations import Progress, View, kept_adapters
from controller_svc.broadcast import Broadcast
from controller_svc.core import (
    AdaptationState,
    AttemptBudget,
    Phase,
    RunStatus,
    adaptation_state,
    set_condition,
)
from controller_svc.local.indexed import unexpected
from controller_svc.local.objects import AdaptationObject, Objects
from controller_svc.local.stage_progress import StageProgress
from controller_svc.local.story import LocalStory
from controller_svc.local.world import DEFAULT_BUDGETS, LocalWorld, to_the_end
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import WorkerSettings
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Internal, SealError, error_class
from seal.runs.cancelled import mark_cancelled
from seal.runs.cleanup import sweep_run
from seal.runs.epochs import take_epoch
from seal.runs.store import in_thread

log = structlog.get_logger(__name__)

AGAIN = AttemptBudget(attempts=1, base_seconds=1.0, max_seconds=60.0)
"""Pauses between two looks at what could not be seen or saved; it never gives up."""


class Live:
    """An adaptation that waits or works; belongs to one event loop."""

    def __init__(
        self,
        one: AdaptationObject,
        status: RunStatus,
        *,
        cancelled: bool,
        moved: Callable[[AdaptationState], None],
    ) -> None:
        """`cancelled`: its owner wishes it to stop. `moved` hears where it is."""
        self.one, self.status, self.cancelled, self._moved = one, status, cancelled, moved
        self._shown = status
        self._meter = StageProgress(one.manifest.spec)
        self._progress = self._meter.enter(status)
        self._world: LocalWorld | None = None
        self._base_sha256, self._pinned = "", asyncio.Event()
        self.views = Broadcast(self._view())
        """What it looks like, for all who watch it."""

    def cancel(self) -> None:
        """Let it stop; it has ended a moment later."""
        self.cancelled = True
        if self._world is not None:
            self._world.wake()

    def on_status(self, status: RunStatus) -> None:
        """The status changed and is saved."""
        self.status = self._shown = status
        if status.adaptation is not None and status.adaptation.prepared is not None:
            self._pinned.set()
        self._moved(adaptation_state(status))
        self._tell(self._meter.enter(status))

    def on_prepared(self, base_sha256: str) -> None:
        """It is pinned to these weights."""
        self._base_sha256 = base_sha256
        self.views.set(self._view())

    def on_progress(self, progress: TaskProgress) -> None:
        """A task got on."""
        self._shown = self.status
        if (seen := self._meter.update(progress)) is not None:
            self._tell(seen)

    def _wait(self, reason: str, message: str) -> None:
        """Show why it does not go on, until it does.

        Nothing of that is saved: the store may be what it waits for.
        """
        now = time.time()
        self._shown = set_condition(self._shown, "Progressing", "False", reason, message, now)
        self.views.set(self._view())

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        self.views.set(self._view())

    def _view(self) -> View:
        return self.one.view(self._shown, base_sha256=self._base_sha256, progress=self._progress)

    async def drive(
        self, *, store: ArtifactStore, clients: ServiceClients, settings: WorkerSettings
    ) -> None:
        """Bring it to its end, whatever comes between.

        It returns early only if another process has taken it over.
        """
        looks = 0
        while not self.status.phase.terminal:
            try:
                await self._work(store, clients, settings)
            except Conflict as error:
                log.error("adaptation taken over", run=self.one.run, message=str(error))
                self._wait(error_class(error).reason, str(error))
                return
            except SealError as error:
                reason = error_class(error).reason
                log.warning("adaptation waits", run=self.one.run, reason=reason, message=str(error))
                self._wait(reason, str(error))
            except Exception as error:
                # The loop's boundary: no defect ends the other adaptations
                log.exception("adaptation crashed", run=self.one.run)
                self._wait(error_class(Internal).reason, unexpected(error))
            else:
                break
            looks += 1
            await asyncio.sleep(AGAIN.delay_seconds(name=self.one.run, attempt=looks + 1))
        await sweep_up(self.one, self.status, store=store, clients=clients)

    async def _work(
        self, store: ArtifactStore, clients: ServiceClients, settings: WorkerSettings
    ) -> None:
        spec = self.one.manifest.spec
        self._world = LocalWorld(
            self.one.run,
            spec,
            store=store,
            clients=clients,
            settings=settings,
            budget=DEFAULT_BUDGETS.shard,
            observer=self,
            story=LocalStory(spec, namespace=self.one.namespace, name=self.one.name),
            epoch=await take_epoch(store, self.one.run),
            cancelled=lambda: self.cancelled,
        )
        learning = asyncio.create_task(self._learn_base(Objects(store)))
        try:
            await to_the_end(spec, self.status, self._world, DEFAULT_BUDGETS.stage)
        finally:
            self._world = None
            learning.cancel()

    async def _learn_base(self, objects: Objects) -> None:
        """Tell what it is pinned to, once it is."""
        await self._pinned.wait()
        self.on_prepared(await in_thread(objects.base_sha256, self.one.run))


async def sweep_up(
    one: AdaptationObject, status: RunStatus, *, store: ArtifactStore, clients: ServiceClients
) -> None:
    """Remove what only the way to an adaptation's end needed; what fails the next start does."""
    try:
        if status.phase is Phase.CANCELLED:
            # A process before this one may have asked for trainings that this one does not know
            await mark_cancelled(store, one.run)
        await clients.cancel_trainings(one.run)
        await sweep_run(
            store,
            one.run,
            policies=kept_adapters(status),
            keep_inner_adapters=one.manifest.spec.artifacts.keep_inner_adapters,
            for_good=True,
        )
    except SealError as error:
        log.warning("adaptation not swept up", run=one.run, message=str(error))
