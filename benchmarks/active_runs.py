"""looks: how long the controller looks at one of many runs whose stages take minutes.

As in *controller*, `controller_runs` RestEMRuns are submitted at once to a cluster whose nodes only
pretend, but a pod works for one to three minutes before it ends well: real stages take no less, and
the control plane has time left. From when every run has had its first Job until as many Jobs have
completed once more, the controller's own histogram (`seal_reconcile_seconds`) tells how long its
looks took: reading the store, deciding, writing the status, creating the next Job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from functools import partial
from statistics import median

from benchmarks.at_scale import LONG, Place, open_place, submitted
from benchmarks.common import Setting, make_figure
from benchmarks.controller_process import ControllerProcess, controllers
from benchmarks.figures import Figure, Figures
from benchmarks.mimicked import prepare
from controller_svc.k8s.api import KubernetesApi
from controller_svc.k8s.connect import connect

KEYS = ("looks",)


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Let the runs go on for a while, and read how long looks took.

    Raises:
        PreconditionFailed: the cluster of $KUBECONFIG has no mimicked nodes.
        SealError: a Job has failed, or nothing happens any more.

    """
    return {"looks": asyncio.run(_measure(setting))}


async def _measure(setting: Setting) -> Figure:
    async with await connect() as client:
        api = KubernetesApi(client)
        await prepare(api)
        async with open_place(setting, api, prefix=LONG) as place:
            with controllers(place.directory, namespace=place.namespace) as start:
                process = start()
                await process.until_leading()
                async with submitted(place):
                    figure = await _while_active(place, process)
            # A pretended pod that is deleted while it works never ends, and keeps its namespace
            await place.jobs.until(
                lambda: len(place.jobs.completed) == len(place.jobs.created),
                partial(place.report, "the last Jobs"),
            )
    return figure


async def _while_active(place: Place, process: ControllerProcess) -> Figure:
    """Of a time in which every run has a Job, and gets the next one."""
    runs, jobs = place.setting.sizes.controller_runs, place.jobs
    report = partial(place.report, "active runs")
    await jobs.until(lambda: len(jobs.completed) >= runs, report)
    before, used, began = await process.scrape(), process.processor_seconds, time.monotonic()
    await jobs.until(lambda: len(jobs.completed) >= 2 * runs, report)
    seconds = time.monotonic() - began
    looks = (await process.scrape()).since(before)
    share = (process.processor_seconds - used) / seconds
    took = [end - jobs.created[name] for name, end in jobs.completed.items()]
    return make_figure(
        place.setting,
        "looks",
        [1e3 * looks.quantile(0.99)],
        reading="99 of 100 looks took less",
        details={
            "runs": f"{runs} active",
            "looks": f"{looks.looks:.0f} in {seconds:.0f} s, half of them below "
            f"{1e3 * looks.quantile(0.5):.0f} ms",
            "Jobs": f"{runs / seconds:.1f}/s completed, each after {median(took):.0f} s (median)",
            "controller": f"{100 * share:.0f} % of a processor, largest resident size "
            f"{process.peak_mib:.0f} MiB (asked: <= 512 MiB)",
        },
        sizes=("controller_runs", "controller_rounds", "controller_shards"),
    )
