"""Where many runs are active at once: a namespace of a cluster whose nodes only pretend."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import Setting
from benchmarks.job_watch import JobWatch, watching
from benchmarks.mimicked import (
    Summaries,
    healthy_services,
    job_settings,
    namespace,
    run_object,
    spec_of,
)
from controller_svc.core import stages
from controller_svc.k8s.api import RUNS, KubernetesApi
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.wanted import owner_of, store_name
from seal.artifacts import ArtifactStore
from seal.names import stage_name
from seal.yaml_files import Tree

SHORT, LONG = "seal-scale", "seal-active"
"""What names of namespaces begin with: pods of the second run for one to three minutes
(kwok-stages.yaml)."""
WORKERS = 16
"""Requests at once of whoever submits, and of the bare loop, which is to be the control plane's
ceiling."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one sample is measured."""

    setting: Setting
    api: KubernetesApi
    namespace: str
    directory: Path
    settings: JobSettings
    jobs: JobWatch
    summaries: Summaries

    def body(self, number: int) -> Tree:
        """A run."""
        sizes = self.setting.sizes
        rounds, parts = sizes.controller_rounds, sizes.controller_shards
        return run_object(f"run-{number:04d}", rounds=rounds, shards=parts)

    @property
    def jobs_per_run(self) -> int:
        """Stages of a run."""
        return len(stages(spec_of(self.body(0))))

    @property
    def all_jobs(self) -> int:
        """Of all runs together."""
        return self.jobs_per_run * self.setting.sizes.controller_runs

    def report(self, side: str, completed: int) -> None:
        """How many Jobs have completed."""
        self.setting.report(f"controller: {side}", completed, self.all_jobs)


@asynccontextmanager
async def open_place(
    setting: Setting, api: KubernetesApi, *, prefix: str = SHORT
) -> AsyncIterator[Place]:
    """One whose name begins so; it goes with all that is in it."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="seal-") as root:
        directory = Path(root)
        summaries = Summaries(ArtifactStore(str(directory / "store")))
        async with healthy_services() as services, namespace(api, name), watching(name) as jobs:
            settings = job_settings(name, services)
            (directory / "jobs.yaml").write_text(
                yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)), encoding="utf-8"
            )
            yield Place(
                setting=setting,
                api=api,
                namespace=name,
                directory=directory,
                settings=settings,
                jobs=jobs,
                summaries=summaries,
            )


@asynccontextmanager
async def submitted(place: Place) -> AsyncIterator[float]:
    """All runs submitted, and within the block their pods' part played; submissions per second."""
    spec, runs = spec_of(place.body(0)), place.setting.sizes.controller_runs
    plan = stages(spec)
    numbers, coming = asyncio.Queue[int](), asyncio.Queue[tuple[str, int]]()
    where: dict[str, tuple[str, int]] = {}

    async def submit() -> None:
        while True:
            body = await place.api.create(RUNS, place.namespace, place.body(await numbers.get()))
            run = store_name(owner_of(RUNS, body))
            await place.summaries.ahead(run, spec, 0)
            for number, (round, stage) in enumerate(plan):
                name = stage_name(run=run, round=round, stage=stage, attempt=1)
                where[name] = (run, number)
            numbers.task_done()

    async def play() -> None:
        while True:
            run, number = await coming.get()
            await place.summaries.ahead(run, spec, number)

    place.jobs.on_create = lambda name: coming.put_nowait(where[name]) if name in where else None
    for number in range(runs):
        numbers.put_nowait(number)
    async with at_once(play):
        started = time.monotonic()
        async with at_once(submit):
            await numbers.join()
        yield runs / (time.monotonic() - started)


@asynccontextmanager
async def at_once(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """So many workers for as long as the block takes; the first failure ends it, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(WORKERS)]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
