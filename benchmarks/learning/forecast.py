"""`--plan`: the runs, and about how long each takes on this machine, as `seal run --plan` says."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from benchmarks.learning.execute import Bench
from benchmarks.learning.plan import ARMS, PlannedRun, lender_of
from benchmarks.learning.summary import read_summaries
from controller_svc.cli.preflight import model_shape
from controller_svc.cli.workload import workload
from controller_svc.worker.prepare import load_data
from seal.models import resolve_model

SECONDS_PER_HOUR = 3600.0


def show_plan(
    bench: Bench, runs: Sequence[PlannedRun], all_runs: Sequence[PlannedRun], *, offline: bool
) -> None:
    """Print a line for each run: what it measures on, its hours, whether it is done.

    Once a run is done, the others' hours follow from its pace.

    Raises:
        SealError: the model cannot be had, or a file is refused.
    """
    weights = model_shape(bench.model, resolve_model(bench.model, offline=offline).path).weights
    done = {summary.key: summary for summary in read_summaries(bench.out)}
    estimates = {run.key: estimated_hours(bench, run, all_runs, weights=weights) for run in runs}
    taken = {
        key: sum(done[key].seconds.values()) / SECONDS_PER_HOUR for key in estimates if key in done
    }
    pace = sum(taken.values()) / sum(estimates[key] for key in taken) if taken else 1.0
    hours = {key: taken.get(key, pace * estimate) for key, estimate in estimates.items()}
    typer.echo(f"{'run':<24}{'train':>7}{'validate':>10}{'hours':>8}")
    for run in runs:
        data = bench.data(run)
        train, validation = data.train.source.contexts, data.validation.source.contexts
        note = "  done" if run.key in taken else ""
        typer.echo(f"{run.key:<24}{train:>7}{validation:>10}{hours[run.key]:>8.1f}{note}")
    left = sum(hours[key] for key in hours if key not in taken)
    by = (
        "by the pace of the runs that are done"
        if taken
        else "to within a factor of two, at a measured GEMM peak of "
        f"{bench.machine.gemm_teraflops or 0.0:.2f} TFLOP/s; a busy machine measures slow"
    )
    typer.echo(f"\n{left:.1f} hours are left, {by}.")


def estimated_hours(
    bench: Bench, run: PlannedRun, all_runs: Sequence[PlannedRun], *, weights: int
) -> float:
    """Of the stages that the run does not take over from another."""
    spec = bench.manifest(run).spec
    shared = ARMS[run.arm].shares if lender_of(run, all_runs) else ()
    seconds = sum(
        work.seconds(weights=weights, teraflops=bench.machine.gemm_teraflops or 1.0)
        for work in workload(spec, load_data(spec))
        if (work.round, work.stage) not in shared
    )
    return seconds / SECONDS_PER_HOUR
