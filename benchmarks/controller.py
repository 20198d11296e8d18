"""controller: the Jobs of many runs through the controller against a bare loop.

`controller_runs` RestEMRuns with a warm start are submitted at once to a cluster whose nodes only
pretend (KWOK; `python -m benchmarks.mimicked_cluster` runs one): a pod ends well 1 to 4 seconds
after it has begun. A run's stages follow each other, each a Job. *controller*:
`python -m controller_svc.k8s` as a process of its own; it reads and writes objects, Jobs, Events
and the artifact store as always, with its default of workers. *bare loop*: this process creates the
same Jobs, the next of a run once the one before has completed, and writes nothing else: the control
plane's own ceiling. Jobs per second from the first that is created to the last that completes, as a
watch sees them; the sides take turns, each sample in a namespace of its own. What pods would leave
in the store is written by a stand-in of this benchmark, for both sides alike, two stages before a
run comes to them. Control plane, stand-in and both sides share the machine's cores.

How long looks take while the control plane has all that it can do is the controller's own
histogram (`seal_reconcile_seconds`), over the whole of a sample; requests are counted by its client
(`seal_api_requests_total`), watch-streams apart. What else the machine does is told by its load
before anything is measured: on a machine that is not this figure's alone, times of looks are those
of its queue for processors.
*Recovery*: two controllers, all runs active; the one that leads is killed (SIGKILL), and the time
counts until the other has created a Job.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, cast

from benchmarks.at_scale import Place, at_once, open_place, submitted
from benchmarks.common import Setting, make_figure
from benchmarks.controller_process import Scraped, controllers, processor_seconds
from benchmarks.figures import Figure, Figures, Side
from benchmarks.mimicked import prepare, spec_of
from controller_svc.core import StartStage, shards, stages
from controller_svc.k8s.api import JOBS, RUNS, KubernetesApi, name_of
from controller_svc.k8s.connect import connect
from controller_svc.k8s.jobs import Owner, stage_job
from seal.config import run_of_object
from seal.errors import Internal
from seal.names import stage_name
from seal.records import Stage
from seal.resources import RUN_KIND
from seal.yaml_files import Tree

KEYS = ("controller",)
BARE, CONTROLLER = "bare loop", "controller"
END_SECONDS = 120.0
"""At most from the last Job's end to the last run's."""
ENOUGH_JOBS_PER_SECOND, SHARE_OF_BARE = 40.0, 0.8
"""One of both is asked for."""


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Let both sides take turns, then kill a controller.

    Raises:
        PreconditionFailed: the cluster of $KUBECONFIG has no mimicked nodes.
        SealError: a run did not come to its end.

    """
    return asyncio.run(_measure(setting))


async def _measure(setting: Setting) -> Figures:
    sizes, load = setting.sizes, os.getloadavg()[0]
    bare: list[Sample] = []
    through: list[Controlled] = []
    async with await connect() as client:
        api = KubernetesApi(client)
        await prepare(api)
        for number in range(sizes.controller_samples):
            for side in (BARE, CONTROLLER) if number % 2 == 0 else (CONTROLLER, BARE):
                async with open_place(setting, api) as place:
                    if side == BARE:
                        bare.append(await _bare(place))
                    else:
                        through.append(await _through(place))
        async with open_place(setting, api) as place:
            recovered = await _recovery(place)
    return {"controller": _figure(setting, bare, through, recovered, load)}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one sample of a side came to."""

    jobs_per_second: float
    processor_ms: dict[str, float]
    """Per Job, by program, from before the first Job."""


@dataclass(frozen=True, kw_only=True)
class Controlled(Sample):
    """What one sample of the controller's side came to."""

    submissions_per_second: float
    scraped: Scraped
    peak_mib: float
    status_bytes: int
    """Of the largest status of any run at its end."""
    jobs_per_run: int
    jobs_again: int
    """Jobs beside the one of each stage."""
    requests_per_run: float
    """To the API server, by the controller."""


async def _bare(place: Place) -> Sample:
    """The bare loop."""
    coming: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    runs = place.setting.sizes.controller_runs
    spec = spec_of(place.body(0))
    plan, where = stages(spec), dict[str, tuple[int, int]]()

    def complete(name: str) -> None:
        run, stage = where[name]
        if stage + 1 < len(plan):
            coming.put_nowait((run, stage + 1))

    async def create() -> None:
        while True:
            run, number = await coming.get()
            body = _job(place, run, *plan[number])
            where[name_of(body)] = (run, number)
            await place.summaries.ahead(f"run-{run:04d}", spec, number)
            await place.api.create(JOBS, place.namespace, body)

    place.jobs.on_complete = complete
    for run in range(runs):
        coming.put_nowait((run, 0))
    used = _used()
    async with at_once(create):
        await place.jobs.until(
            lambda: len(place.jobs.completed) == place.all_jobs, partial(place.report, BARE)
        )
    return Sample(
        jobs_per_second=place.all_jobs / place.jobs.seconds,
        processor_ms=_spent_ms(place, used, _used()),
    )


def _used() -> dict[str, float]:
    """Processor seconds so far, by program; this process is the loop, or who submits."""
    return {**processor_seconds(), "benchmark": time.process_time()}


def _spent_ms(
    place: Place, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """Processor time per Job."""
    return {
        name: 1e3 * (end - before.get(name, 0.0)) / place.all_jobs for name, end in after.items()
    }


def _job(place: Place, run: int, round: int, stage: Stage) -> Tree:
    """The Job of a stage as the controller makes it, but for its owner, which is not there."""
    body = place.body(run)
    spec, name = spec_of(body), name_of(body)
    action = StartStage(
        name=stage_name(run=name, round=round, stage=stage, attempt=1),
        run=name,
        stage=stage,
        round=round,
        shards=shards(spec, stage),
        attempt=1,
        epoch=1,
        policy=None,
    )
    made: Any = stage_job(
        action,
        spec=spec,
        cluster=run_of_object(body)[1],
        owner=Owner(kind=RUN_KIND, name=name, namespace=place.namespace, uid="none"),
        settings=place.settings,
    )
    del made["metadata"]["ownerReferences"]
    return cast("Tree", made)


async def _through(place: Place) -> Controlled:
    """The same through the controller."""
    runs = place.setting.sizes.controller_runs
    with controllers(place.directory, namespace=place.namespace) as start:
        process = start()
        await process.until_leading()
        used = {**_used(), CONTROLLER: process.processor_seconds}
        async with submitted(place) as submissions_per_second:
            await place.jobs.until(
                lambda: len(place.jobs.completed) >= place.all_jobs,
                partial(place.report, CONTROLLER),
            )
            bodies = await _complete(place)
        spent = {**_used(), CONTROLLER: process.processor_seconds}
        scraped, peak_mib = await process.scrape(), process.peak_mib
    return Controlled(
        jobs_per_second=place.all_jobs / place.jobs.seconds,
        submissions_per_second=submissions_per_second,
        scraped=scraped,
        peak_mib=peak_mib,
        status_bytes=max(len(json.dumps(body["status"]).encode()) for body in bodies),
        jobs_per_run=place.jobs_per_run,
        jobs_again=len(place.jobs.created) - place.all_jobs,
        requests_per_run=sum(scraped.requests.values()) / runs,
        processor_ms=_spent_ms(place, used, spent),
    )


async def _complete(place: Place) -> list[Any]:
    """All runs, once they are complete.

    Raises:
        Internal: some are not, some time after their last Job's end.

    """
    bodies: list[Any] = []
    for _ in range(int(END_SECONDS)):
        bodies = await place.api.list(RUNS, place.namespace)
        if all(_phase(body) == "Complete" for body in bodies):
            return bodies
        await asyncio.sleep(1.0)
    phases = Counter(map(_phase, bodies))
    raise Internal(f"the last Job has ended, and not all runs are complete: {dict(phases)}")


def _phase(body: Any) -> str:
    return str((body.get("status") or {}).get("phase", "none"))


async def _recovery(place: Place) -> float:
    """Seconds from the death of the controller that leads to the first Job of the next."""
    runs, jobs = place.setting.sizes.controller_runs, place.jobs
    with controllers(place.directory, namespace=place.namespace) as start:
        first = start()
        await first.until_leading()
        await start().until_answering()
        async with submitted(place):
            await jobs.until(lambda: len(jobs.created) >= runs, partial(place.report, "recovery"))
            epoch = max(jobs.epochs.values())
            first.kill()
            killed_at = time.monotonic()
            await jobs.until(
                lambda: max(jobs.epochs.values()) > epoch, partial(place.report, "recovery")
            )
    recovered = min(at for name, at in jobs.created.items() if jobs.epochs[name] > epoch)
    # A pretended pod that is deleted while it works never ends, and keeps its namespace
    await jobs.until(
        lambda: len(jobs.completed) == len(jobs.created), partial(place.report, "recovery")
    )
    return recovered - killed_at


def _figure(
    setting: Setting,
    bare: Sequence[Sample],
    through: Sequence[Controlled],
    recovered: float,
    load: float,
) -> Figure:
    """Both sides, and what was measured beside. `load`: of the machine before all of it."""
    newest = through[-1]
    rates, ceilings = ([sample.jobs_per_second for sample in side] for side in (through, bare))
    share = [own / ceiling for own, ceiling in zip(rates, ceilings, strict=True)]
    looks = newest.scraped
    by_request = ", ".join(
        f"{name} {count / setting.sizes.controller_runs:.1f}"
        for name, count in looks.requests.most_common(8)
    )
    enough = median(rates) >= ENOUGH_JOBS_PER_SECOND
    return make_figure(
        setting,
        "controller",
        share,
        reading="median of the rounds' ratios, or that many Jobs per second",
        met=enough or median(share) >= SHARE_OF_BARE,
        sides=(
            Side(name=CONTROLLER, unit="Jobs/s", samples=tuple(rates)),
            Side(name=BARE, unit="Jobs/s", samples=tuple(ceilings)),
        ),
        details={
            "runs": f"{setting.sizes.controller_runs} at once, {newest.jobs_per_run} Jobs each",
            "submissions": f"{newest.submissions_per_second:.0f} runs/s",
            "looks at runs": f"p50 {1e3 * looks.quantile(0.5):.0f} ms, p99 "
            f"{1e3 * looks.quantile(0.99):.0f} ms (`looks` has them at an ordinary pace), "
            f"{looks.looks / setting.sizes.controller_runs:.1f} per run",
            "requests per run": f"{newest.requests_per_run:.1f}: {by_request}",
            "controller's largest resident size": f"{newest.peak_mib:.0f} MiB (asked: <= 512 MiB)",
            "largest status": f"{newest.status_bytes / 1024:.1f} KiB (asked: <= 64 KiB)",
            "recovery after SIGKILL": f"{recovered:.1f} s (asked: <= 5 s)",
            "Jobs made twice": str(newest.jobs_again),
            "Events": ", ".join(f"{name} {count}" for name, count in looks.events.items()),
            "machine's load before (1 min, processes that would run)": f"{load:.1f} of "
            f"{os.cpu_count()} processors",
            "processor time per Job (ms)": _shown(newest),
            "processor time per Job of the bare loop (ms)": _shown(bare[-1]),
        },
        sizes=("controller_samples", "controller_runs", "controller_rounds", "controller_shards"),
    )


def _shown(sample: Sample) -> str:
    return ", ".join(f"{name} {ms:.1f}" for name, ms in sample.processor_ms.items())
