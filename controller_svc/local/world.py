"""Local mode: the same core and the same workers as on a cluster.

Only "create a Job" is "start an asyncio task".

    observe (which tasks live, which have ended) -> decide (pure) -> save the status -> act -> wait
    for something to end

The status is on disk before anything is started for it, so a process that is killed at any moment
leaves a run that `resume` takes up: it asks for the same tasks again, and each finds its committed
work.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from controller_svc.core import (
    DEFAULT_BUDGET,
    AttemptBudget,
    Observed,
    RunStatus,
    Stage,
    StartTask,
    TaskFailed,
    TaskResult,
    TaskSucceeded,
    decide,
)
from controller_svc.local.files import (
    check_existing,
    load_data,
    open_run,
    read_manifest,
    read_status,
    run_lock,
    write_status,
)
from controller_svc.worker.clients import (
    DEFAULT_SETTINGS,
    ServiceAddresses,
    ServiceClients,
    WorkerSettings,
)
from controller_svc.worker.progress import SILENT, Observer
from controller_svc.worker.store import in_thread
from controller_svc.worker.task import run_task
from seal.artifacts import ArtifactStore
from seal.errors import Retryable, SealError, error_class
from seal.resources import RestEMRun
from seal.settings import RunSpec
from seal.telemetry import metrics

__all__ = ["check_run", "read_manifest", "read_status", "run_local"]

log = structlog.get_logger(__name__)


async def run_local(
    manifest: RestEMRun,
    *,
    root: str | Path,
    services: ServiceAddresses,
    resume: bool = False,
    progress: Observer = SILENT,
    settings: WorkerSettings = DEFAULT_SETTINGS,
    budget: AttemptBudget = DEFAULT_BUDGET,
) -> RunStatus:
    """Run a manifest to its end on services that are up; the final status, `Complete` or `Failed`.

    Cancelling it (Ctrl-C under `asyncio.run`) stops the tasks and leaves a run that `resume=True`
    takes up; a run that failed is tried again by `resume=True` too. `root` is the artifact store's
    URI or a directory.

    Raises:
        Conflict: the run exists and `resume` is not set, it was started with another spec, or
            another process runs it.
        InvalidInput: a data file is refused.
        SealError: the status cannot be saved.

    """
    store = ArtifactStore(str(root))
    with run_lock(store, manifest.name):
        status = await open_run(store, manifest, resume=resume)
        async with ServiceClients(services, settings) as clients:
            run = _LocalRun(
                manifest.spec,
                store=store,
                clients=clients,
                settings=settings,
                budget=budget,
                observer=progress,
            )
            status = await run.to_the_end(status)
        await in_thread(store.remove_leftovers, manifest.name, older_than_seconds=0.0)
        return status


async def check_run(
    manifest: RestEMRun, *, root: str | Path, resume: bool = False
) -> RunStatus | None:
    """The refusals of `run_local` before anything costly is loaded; nothing is written.

    The saved status of the run to resume, or None.

    Raises:
        Conflict: the run exists and `resume` is not set, or it was started with another spec.
        InvalidInput: a data file is refused.

    """
    store = ArtifactStore(str(root))
    if await check_existing(store, manifest, resume=resume):
        return await read_status(store, manifest.name)
    await in_thread(load_data, manifest.spec)
    return None


class _LocalRun:
    """One run at work in this process."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        store: ArtifactStore,
        clients: ServiceClients,
        settings: WorkerSettings,
        budget: AttemptBudget,
        observer: Observer,
    ) -> None:
        self._spec, self._store, self._clients, self._settings = spec, store, clients, settings
        self._budget, self._observer = budget, observer
        self._live: dict[str, asyncio.Task[TaskResult]] = {}
        self._results: dict[str, TaskResult] = {}

    async def to_the_end(self, status: RunStatus) -> RunStatus:
        """Decide and act until the status is terminal and no task is left."""
        self._observer.on_status(status)
        try:
            while True:
                status = await self._reconcile(status)
                if not self._live:
                    return status
                await asyncio.wait(self._live.values(), return_when=asyncio.FIRST_COMPLETED)
                self._collect()
        finally:
            await self._stop_all()

    async def _reconcile(self, status: RunStatus) -> RunStatus:
        """One decision: saved, then acted upon."""
        observed = Observed(
            live=frozenset(self._live), results=self._results, now_seconds=time.time()
        )
        decision = decide(self._spec, status, observed, budget=self._budget)
        if decision.status != status:
            await write_status(self._store, decision.status)
            _log_transition(status, decision.status)
            self._observer.on_status(decision.status)
        for action in decision.actions:
            if isinstance(action, StartTask):
                self._live[action.name] = asyncio.create_task(
                    self._attempt(action), name=action.name
                )
            elif not (task := self._live[action.name]).cancelling():
                task.cancel()
        return decision.status

    def _collect(self) -> None:
        """Take the ends of tasks; a stopped one has no result."""
        for name, task in [(name, task) for name, task in self._live.items() if task.done()]:
            del self._live[name]
            if not task.cancelled():
                self._results[name] = task.result()

    async def _attempt(self, action: StartTask) -> TaskResult:
        """One attempt of one task, its error as data.

        This is the loop's boundary: no defect of a worker ends the controller.
        """
        await asyncio.sleep(action.delay_seconds)
        try:
            summary = await run_task(
                action,
                spec=self._spec,
                store=self._store,
                clients=self._clients,
                settings=self._settings,
                tell=self._observer.on_progress,
            )
        except SealError as error:
            log.warning(
                "task failed",
                task=action.name,
                reason=error_class(error).reason,
                message=str(error),
            )
            return failure(error)
        except Exception as error:
            log.exception("task crashed", task=action.name)
            return TaskFailed(
                permanent=True, reason="Internal", message=f"{type(error).__name__}: {error}"
            )
        if action.stage is not Stage.IMPROVE:
            for outcome, number in summary.outcomes.items():
                metrics.inner_loops.labels(outcome=outcome).inc(number)
        return TaskSucceeded(summary=summary)

    async def _stop_all(self) -> None:
        """Stop what lives and wait until it has gone."""
        for task in self._live.values():
            task.cancel()
        await asyncio.gather(*self._live.values(), return_exceptions=True)
        self._live.clear()


def failure(error: SealError) -> TaskFailed:
    """A worker's error as the core sees it."""
    return TaskFailed(
        permanent=not isinstance(error, Retryable),
        reason=error_class(error).reason,
        message=str(error),
        retry_after_seconds=error.retry_after_seconds or 0.0,
    )


def _log_transition(before: RunStatus, after: RunStatus) -> None:
    """One line per change of phase or stage, and one per new attempt."""
    if (before.phase, before.round, before.stage) != (after.phase, after.round, after.stage):
        reasons = [condition.reason for condition in after.conditions if condition.status == "True"]
        log.info(
            "run moved",
            run=after.run,
            phase=str(after.phase),
            round=after.round,
            stage=after.stage,
            reasons=reasons,
        )
    known = {task.name for task in before.tasks}
    for task in after.tasks:
        if task.attempt > 1 and task.name not in known:
            log.warning(
                "task again",
                run=after.run,
                task=task.name,
                delay_seconds=task.delay_seconds,
                cause=task.message,
            )
