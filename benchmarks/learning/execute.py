"""The runs of the plan, one after the other, by the product on one model in this process.

Killed at any moment, the same call goes on: a run whose summary is there is left out, one that was
begun is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.learning.data import Data, Sources, data_of
from benchmarks.learning.plan import ARMS, PlannedRun, lender_of
from benchmarks.learning.settings import check_same_settings, settings_of
from benchmarks.learning.sharing import borrow
from benchmarks.learning.summary import (
    Summary,
    file_name,
    read_summaries,
    summarise,
    write_summary,
)
from controller_svc.cli.machine import describe_machine, gemm_peak
from controller_svc.core import Phase, RunStatus
from controller_svc.local.observer import Observer
from controller_svc.local.world import run_local
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import Internal
from seal.report.numbers.model import Machine
from seal.resources import RestEMRun
from seal.runs.store import manifest_path
from seal.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Services = Callable[[], AbstractAsyncContextManager[ServiceAddresses]]
"""Brings the three services up for as long as the block lasts."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and on what the runs are made."""

    root: Path
    """Artifact store of the runs."""
    out: Path
    """Directory of the summaries."""
    model: str
    sources: Sources
    machine: Machine

    @property
    def store(self) -> ArtifactStore:
        """The store at `root`."""
        return ArtifactStore(str(self.root))

    def data(self, run: PlannedRun) -> Data:
        """The passages of a run."""
        return data_of(run.planned, self.sources, self.root / "data")

    def manifest(self, run: PlannedRun) -> RestEMRun:
        """A run of the plan with its data."""
        data = self.data(run)
        return run.manifest(
            model=self.model, train=data.train.path, validation=data.validation.path
        )


def missing(
    bench: Bench, runs: Sequence[PlannedRun], summaries: Sequence[Summary]
) -> tuple[PlannedRun, ...]:
    """Runs of which there is no summary.

    Raises:
        Conflict: a summary was made with other settings than the plan now has, so that the page
            could not have both: known before hours are spent.
    """
    there = {summary.key: summary for summary in summaries}
    for run in runs:
        now = settings_of(bench.manifest(run).spec, bench.data(run))
        for summary in summaries:
            check_same_settings(
                file_name(summary), summary.settings, now, whole=summary.key == run.key
            )
    return tuple(run for run in runs if run.key not in there)


async def run_all(
    bench: Bench,
    runs: Sequence[PlannedRun],
    *,
    all_runs: Sequence[PlannedRun],
    services: Services,
    say: Say,
    after: Callable[[], object],
    observer: Observer | None = None,
) -> None:
    """Make the runs that have no summary yet; `after` is called with every new summary.

    `all_runs`: the whole plan, of which a run may borrow. `observer`: who is told of the runs; None
    says every stage.

    Raises:
        Conflict: a summary was made with other settings, or another process is at a run.
        Internal: a run failed.
        SealError: the product's.
    """
    left = missing(bench, runs, read_summaries(bench.out))
    if not left:
        return
    async with services() as addresses:
        for number, run in enumerate(left, start=1):
            say(f"{run.key} ({number} of {len(left)})")
            await _run(
                bench, run, lender_of(run, all_runs), addresses, say, observer or _Stages(run, say)
            )
            write_summary(
                bench.out, summarise(bench.store, run, bench.manifest(run), bench.data(run))
            )
            after()


async def _run(
    bench: Bench,
    run: PlannedRun,
    lender: PlannedRun | None,
    addresses: ServiceAddresses,
    say: Say,
    observer: Observer,
) -> None:
    """One run to its end, from where it stands."""
    store, manifest = bench.store, bench.manifest(run)
    if lender is not None:
        taken = borrow(
            store,
            lender=bench.manifest(lender),
            borrower=manifest,
            stages=ARMS[run.arm].shares,
        )
        if taken:
            say(f"{run.key}: {taken} stages taken over from {lender.key}")
    status = await run_local(
        manifest,
        root=bench.root,
        services=addresses,
        resume=store.exists(manifest_path(manifest.name)),
        progress=observer,
    )
    if status.phase is not Phase.COMPLETE:
        failed = status.condition("Failed")
        raise Internal(
            f"run {run.name} failed: {failed.message if failed else 'no reason is known'}",
            remedy="mend the cause and give the same command: what is finished is kept",
        )
    store.write_json(f"{manifest.name}/machine.json", bench.machine)


class _Stages:
    """Says which stage a run is at."""

    def __init__(self, run: PlannedRun, say: Say) -> None:
        self._run, self._say, self._last = run, say, ""

    def on_status(self, status: RunStatus) -> None:
        """Say a stage once, when it begins."""
        if status.current is not None and status.current.name != self._last:
            self._last = status.current.name
            self._say(f"{self._run.key}: round {status.current.round}, {status.current.stage}")

    def on_progress(self, progress: TaskProgress) -> None:
        """The stages are enough."""


def this_machine(engine: EngineSettings) -> Machine:
    """What the runs are computed on, with its measured GEMM peak."""
    dtype, teraflops = gemm_peak(engine)
    return describe_machine(device=engine.device, dtype=dtype, gemm_teraflops=teraflops)


def local(model: str, *, root: Path, engine: EngineSettings, offline: bool) -> Services:
    """The product's own services in this process, as `seal run` has them."""
    from controller_svc.local.services import local_services  # loads torch

    @asynccontextmanager
    async def up() -> AsyncIterator[ServiceAddresses]:
        async with local_services(model, root=root, engine=engine, offline=offline) as services:
            yield services.addresses

    return up
