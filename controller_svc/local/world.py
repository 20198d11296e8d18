"""Local mode: the world of a laptop.

The same core, the same reconcile loop and the same workers as on a cluster; a Job is an
`IndexedStage` of asyncio tasks, the status is a file, and the lock keeps a second process away. On
an object store, which has no locks, a newer process takes the run over: the older one's next save
is refused, and so is what its workers commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from controller_svc.core import (
    DEFAULT_BUDGET,
    Action,
    AttemptBudget,
    Observed,
    Phase,
    RunStatus,
    StageObserved,
    StartStage,
    StopStage,
)
from controller_svc.local.indexed import SHARD_BUDGET, IndexedStage, failure
from controller_svc.local.lock import run_lock, while_held
from controller_svc.local.observer import SILENT, Observer
from controller_svc.local.story import LocalStory
from controller_svc.reconcile import reconcile
from controller_svc.runs import open_run, read_status, write_status
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.demands import describe_model
from controller_svc.worker.others import check_others, check_same_model
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import DEFAULT_SETTINGS, ServiceAddresses, WorkerSettings
from controller_svc.worker.task import run_task
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Retryable, SealError
from seal.resources import RestEMRun
from seal.rpc.hops import current_hop
from seal.rpc.tracing import working
from seal.runs.cleanup import sweep_run
from seal.runs.epochs import claim_stage, newest_epoch, take_epoch
from seal.runs.store import in_thread, read_prepared
from seal.runs.task import ShardTask
from seal.settings import RunSpec, Spec

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Who tries how often."""

    shard: AttemptBudget = SHARD_BUDGET
    """One shard within an attempt of its stage."""
    stage: AttemptBudget = DEFAULT_BUDGET
    """One stage."""


DEFAULT_BUDGETS = Budgets()


async def run_local(
    manifest: RestEMRun,
    *,
    root: str | Path,
    services: ServiceAddresses,
    resume: bool = False,
    progress: Observer = SILENT,
    settings: WorkerSettings = DEFAULT_SETTINGS,
    budgets: Budgets = DEFAULT_BUDGETS,
) -> RunStatus:
    """Run a manifest to its end on services that are up; the final status, `Complete` or `Failed`.

    Cancelling it (Ctrl-C under `asyncio.run`) stops the tasks and leaves a run that `resume=True`
    takes up; a run that failed is tried again by `resume=True` too, and one that is complete goes
    on if it is given more rounds. `root` is the artifact store's URI or a directory.

    Raises:
        Conflict: the run exists and `resume` is not set, it was started with another spec or on
            another base model, the trainer takes shorter rows than then, or another process runs
            it.
        InvalidInput: a data file is refused, or the trainer cannot take the run's settings now.
        Transient: the run's directory was deleted, or its volume taken away.
        SealError: the status cannot be saved.

    """
    store = ArtifactStore(str(root))
    with run_lock(store, manifest.name) as lock:
        async with while_held(lock):
            return await _run_alone(
                store,
                manifest,
                services=services,
                resume=resume,
                progress=progress,
                settings=settings,
                budgets=budgets,
            )


async def _run_alone(
    store: ArtifactStore,
    manifest: RestEMRun,
    *,
    services: ServiceAddresses,
    resume: bool,
    progress: Observer,
    settings: WorkerSettings,
    budgets: Budgets,
) -> RunStatus:
    """The run, with nobody else on this machine at it."""
    run = manifest.name
    begun = await read_status(store, run) is not None
    status = await open_run(store, manifest, resume=resume)
    progress.on_status(status)
    if not status.phase.terminal:
        async with ServiceClients(services, settings) as clients:
            await check_model(store, manifest, clients)
            story = LocalStory(manifest.spec, namespace=manifest.metadata.namespace, name=run)
            world = LocalWorld(
                run,
                manifest.spec,
                store=store,
                clients=clients,
                settings=settings,
                budget=budgets.shard,
                observer=progress,
                story=story,
                epoch=await take_epoch(store, run),
            )
            with working("run", current_hop(), run=run):
                if begun:
                    story.resumed(status)
                status = await to_the_end(manifest.spec, status, world, budgets.stage)
    if status.phase is Phase.COMPLETE:
        await _sweep(store, manifest.spec, status)
    await in_thread(store.remove_leftovers, run, older_than_seconds=0.0)
    return status


async def sweep_complete(store: ArtifactStore, manifest: RestEMRun, status: RunStatus) -> None:
    """Remove once more what only the way to a run's end needed.

    The process that brought it there may have died over that, or have met a store that was away.

    Raises:
        Locked: another process has the run.
        SealError: the store is away.

    """
    with run_lock(store, status.run):
        await _sweep(store, manifest.spec, status)
        await in_thread(store.remove_leftovers, status.run, older_than_seconds=0.0)


async def _sweep(store: ArtifactStore, spec: RunSpec, status: RunStatus) -> None:
    await sweep_run(
        store,
        status.run,
        policies=[policy.adapter for policy in status.policies if policy.adapter],
        keep_inner_adapters=spec.artifacts.keep_inner_adapters,
    )


async def check_model(store: ArtifactStore, manifest: RestEMRun, clients: ServiceClients) -> None:
    """Refuse to go on with a run on other weights, or a trainer that takes too little for it.

    Raises:
        Conflict: naming both digests, or the longest row that the run was prepared for.
        InvalidInput: a rank, target or length of the run is more than the trainer takes now.

    """
    prepared = await read_prepared(store, manifest.name)
    if prepared is None:
        return
    now = await describe_model(manifest.spec, clients)
    check_same_model(manifest.name, prepared.model, now, field="spec.model")
    await check_others(manifest.name, manifest.spec, prepared, clients)


async def to_the_end(
    spec: Spec, status: RunStatus, world: LocalWorld, budget: AttemptBudget
) -> RunStatus:
    """Reconcile until the status is terminal and nothing is left at work."""
    world.story.show(status)
    try:
        while True:
            status = await reconcile(spec, status, world, told=world.story.tell, budget=budget)
            if status.phase.terminal and not world.at_work:
                return status
            await world.changed()
    finally:
        await world.stop_all()


def _never() -> bool:
    """The default of `cancelled`."""
    return False


class LocalWorld:
    """One run or adaptation at work in this process."""

    def __init__(
        self,
        run: str,
        spec: Spec,
        *,
        store: ArtifactStore,
        clients: ServiceClients,
        settings: WorkerSettings,
        budget: AttemptBudget,
        observer: Observer,
        story: LocalStory,
        epoch: int,
        cancelled: Callable[[], bool] = _never,
    ) -> None:
        """`cancelled`: whether the owner wishes it to stop; `wake` says that this has changed.

        `story`: to whom it is told what becomes of it.
        """
        self._run, self._spec, self._store, self._clients = run, spec, store, clients
        self._settings, self._budget, self._observer = settings, budget, observer
        self._epoch, self._cancelled, self.story = epoch, cancelled, story
        self._stages: dict[str, IndexedStage] = {}
        self._changed = asyncio.Event()
        self._looks: Counter[str] = Counter()
        """By stage: how often what it came to could not be read."""

    @property
    def at_work(self) -> bool:
        """True while anything runs."""
        return any(not stage.ended for stage in self._stages.values())

    async def changed(self) -> None:
        """Wait until a shard has ended since the last look, or `wake`."""
        await self._changed.wait()

    def wake(self) -> None:
        """End the wait for a change: another look is worth it."""
        self._changed.set()

    async def observe(self, status: RunStatus) -> Observed:
        """The stages of this process; what a finished one came to is read from the store."""
        self._changed.clear()
        stages: dict[str, StageObserved] = {}
        for name, stage in self._stages.items():
            stages[name] = stage.observed()
            current = status.current
            if current is not None and name == current.name and stage.ended:
                stages[name] = await self._with_sums(status, stages[name])
        return Observed(
            stages=stages,
            cancelled=self._cancelled(),
            epoch=self._epoch,
            now_seconds=time.time(),
        )

    async def _with_sums(self, status: RunStatus, seen: StageObserved) -> StageObserved:
        """An ended stage with its sums, if all its shards have finished."""
        if seen.failed or status.current is None:
            return seen
        try:
            return replace(seen, sums=await read_sums(self._store, self._run, status.current))
        except SealError as error:
            if isinstance(error, Retryable) and self._looks_again(status.current.name, error):
                return replace(seen, ended=False)
            return replace(seen, failed={0: failure(error)})

    def _looks_again(self, name: str, error: Retryable) -> bool:
        """Look again after a pause at what a stage came to: it is there, and takes no new attempt.

        False once it was looked at as often as a shard is tried.
        """
        self._looks[name] += 1
        attempt = self._looks[name] + 1
        if attempt > self._budget.attempts:
            return False
        pause = self._budget.delay_seconds(
            name=name, attempt=attempt, retry_after_seconds=error.retry_after_seconds or 0.0
        )
        log.warning("stage not readable", stage=name, delay_seconds=pause, message=str(error))
        asyncio.get_running_loop().call_later(pause, self.wake)
        return True

    async def save(self, status: RunStatus) -> None:
        """Write `status.json`, unless a newer process has the run."""
        newest = await newest_epoch(self._store, self._run)
        if newest > self._epoch:
            raise Conflict(
                f"run {self._run!r} has been taken over by another process (epoch {newest})",
                remedy="leave it to that one",
            )
        await write_status(self._store, status)
        self._observer.on_status(status)

    async def act(self, action: Action) -> None:
        """Start or stop the tasks of a stage."""
        if isinstance(action, StopStage):
            self._stages[action.name].stop()
        elif action.name not in self._stages:
            await claim_stage(self._store, self._run, action.round, action.stage, self._epoch)
            self._stages[action.name] = IndexedStage(
                action,
                lambda shard: self._work(action, shard),
                budget=self._budget,
                changed=self._changed,
            )

    async def _work(self, action: StartStage, shard: int) -> None:
        await run_task(
            shard_task(action, shard),
            spec=self._spec,
            store=self._store,
            clients=self._clients,
            settings=self._settings,
            tell=self._on_progress,
        )

    def _on_progress(self, progress: TaskProgress) -> None:
        self.story.on_progress(progress)
        self._observer.on_progress(progress)

    async def stop_all(self) -> None:
        """Stop what runs and wait until it has gone."""
        for stage in self._stages.values():
            stage.stop()
        for stage in self._stages.values():
            await stage.gone()


def shard_task(action: StartStage, shard: int) -> ShardTask:
    """One index of a stage."""
    return ShardTask(
        run=action.run,
        stage=action.stage,
        round=action.round,
        shard=shard,
        shards=action.shards,
        attempt=action.attempt,
        epoch=action.epoch,
        policy=action.policy,
    )
