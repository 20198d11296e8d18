"""`python -m benchmarks.soak`.

Many adapters of mixed lengths, of several runs, through few slots of one engine. All are queued
before the first is trained, run after run, so an unfair engine would serve them in that order; some
are cancelled after their first step. What must hold: none is lost, resident memory stays flat, and
the runs take turns. Results are dropped as they come: what grows is the engine's.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import transformers
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.common import machine_line, training_request
from benchmarks.data import EditCase, load_cases
from benchmarks.random_model import save_random_model
from benchmarks.run import Output
from benchmarks.soak.figures import SoakFigures, draw, summarise
from benchmarks.soak.run import soak
from seal.datasets import load_contexts
from seal.engine import Engine, TrainingRequest
from seal.engine.precision import compute_dtype
from seal.errors import SealError, error_class
from seal.files import file_errors
from seal.models import resolve_model
from seal.settings import EngineSettings
from seal.telemetry import configure_logging

RANDOM_MODEL = "random"
ROWS_MEDIAN, ROWS_SIGMA, ROWS_MAX = 7, 0.64, 69
"""Rows per edit where there is no log: log-normal with the log's median, mean (8.6) and maximum."""
JSON_FILE, PLOT_FILE = "soak.json", "soak.svg"


def synthetic_cases(count: int, *, seed: int = 0) -> tuple[EditCase, ...]:
    """Edits of sentences of the embedded corpus, with as many rows as published ones have."""
    contexts = load_contexts("corpus://train")
    sentences = [
        part for context in contexts for part in re.split(r"(?<=[.!?])\s+", context.text.strip())
    ]
    chooser = random.Random(seed)
    cases = []
    for number in range(count):
        rows = min(
            ROWS_MAX, max(1, round(chooser.lognormvariate(math.log(ROWS_MEDIAN), ROWS_SIGMA)))
        )
        examples = tuple(("", sentence) for sentence in chooser.choices(sentences, k=rows))
        cases.append(EditCase(f"synthetic/{number}", contexts[number % len(contexts)], 0, examples))
    return tuple(cases)


def make_requests(
    cases: Sequence[EditCase], *, runs: int, epochs: int
) -> tuple[TrainingRequest, ...]:
    """The published inner loop on every case, run after run.

    The first run has most, the last a `runs`-th of that.
    """
    borders = [
        round(len(cases) * share / (runs * (runs + 1) / 2))
        for share in itertools.accumulate(range(runs, 0, -1))
    ]
    run_of = [
        run
        for run, (start, stop) in enumerate(itertools.pairwise([0, *borders]))
        for _ in range(start, stop)
    ]
    requests = (
        training_request(case, epochs=epochs, seed=number) for number, case in enumerate(cases)
    )
    return tuple(
        replace(request, run=f"run-{run + 1}")
        for run, request in zip(run_of, requests, strict=True)
    )


def describe(figures: SoakFigures) -> str:
    """The figures for people."""
    outcomes = ", ".join(
        f"{count} {outcome}" for outcome, count in sorted(figures.outcomes.items())
    )
    low, middle, high = figures.rows_min_median_max
    lines = [
        f"{figures.requested} adapters of {low} to {high} rows (median {middle:g}), "
        f"{figures.slots} slots, {figures.seconds:.0f} s",
        f"lost      {figures.lost}; {outcomes}",
        f"memory    {figures.slope_mb_per_100:+.2f} MB per 100 adapters after the warm-up; median "
        "of the first quarter "
        f"{figures.first_quarter_mb:.1f} MB, of the last {figures.last_quarter_mb:.1f} MB",
        f"order     no run more than {figures.largest_lead} ahead of another while both wait",
    ]
    for run, turns in figures.turns.items():
        lines.append(
            f"  {run}   {turns.adapters} adapters; places from round-robin at most "
            f"{turns.admission_deviation}; "
            f"ended at most {turns.end_deviation} places from the order of admission"
        )
    return "\n".join(lines)


def measure(
    directory: Path,
    requests: Sequence[TrainingRequest],
    *,
    slots: int,
    cancel_every: int,
    model: str,
) -> SoakFigures:
    """One soak on a transformers directory."""
    engine = Engine.load(
        directory, name=model, settings=EngineSettings(slots=slots, max_queue=len(requests) + 1)
    )
    started = time.perf_counter()
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("adapters", total=len(requests))
            served = soak(
                engine, requests, cancel_every=cancel_every, on_end=lambda _: bar.advance(task)
            )
    finally:
        engine.close()
    rows = [len(request.examples) for request in requests]
    about = {
        "model": model,
        "slots": slots,
        "epochs": requests[0].optimizer.epochs,
        "seconds": time.perf_counter() - started,
        "rows_min_median_max": (min(rows), median(rows), max(rows)),
    }
    return summarise(served, [request.run for request in requests]).model_copy(update=about)


def main(
    model: Annotated[
        str,
        typer.Option(
            help="`random` (small, made here), smollm2-135m, a directory, file:// or hf://."
        ),
    ] = RANDOM_MODEL,
    edits: Annotated[
        Path | None,
        typer.Option(help="SEAL's log of self-edits, rank_iter0.json.", show_default=False),
    ] = None,
    adapters: Annotated[int, typer.Option(min=10, help="Adapters to train.")] = 500,
    slots: Annotated[int, typer.Option(min=1, help="Slots of the engine.")] = 16,
    runs: Annotated[int, typer.Option(min=1, help="Runs that share the engine.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each adapter.")] = 1,
    cancel_every: Annotated[
        int,
        typer.Option(min=0, help="Every n-th is cancelled after its first step; 0 cancels none."),
    ] = 50,
    out: Annotated[Path, typer.Option(help="Directory of soak.json and soak.svg.")] = Path("docs"),
    output: Annotated[Output, typer.Option(help="What is printed.")] = Output.TABLE,
) -> None:
    """Train many adapters and say whether one was lost, memory grew or a run was favoured.

    Exit code 1 if an adapter was lost.
    """
    configure_logging("error")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        cases = (
            load_cases(edits=edits, passages=None).take(adapters)
            if edits is not None
            else synthetic_cases(adapters)
        )
        requests = make_requests(cases, runs=runs, epochs=epochs)
        with tempfile.TemporaryDirectory() as scratch:
            directory = (
                save_random_model(Path(scratch))
                if model == RANDOM_MODEL
                else resolve_model(model).path
            )
            figures = measure(
                directory, requests, slots=slots, cancel_every=cancel_every, model=model
            )
        about = {
            "command": shlex.join(["python", "-m", "benchmarks.soak", *sys.argv[1:]]),
            "machine": machine_line(compute_dtype(EngineSettings().dtype, "cpu")),
            "data": f"logged self-edits ({edits.name})"
            if edits is not None
            else "sentences of the embedded corpus, log-normal rows",
        }
        figures = figures.model_copy(update=about)
        write(figures, out)
    except SealError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error_class(error).exit_code) from error
    typer.echo(figures.model_dump_json(indent=1) if output is Output.JSON else describe(figures))
    raise typer.Exit(1 if figures.lost else 0)


def write(figures: SoakFigures, out: Path) -> None:
    """Write soak.json and soak.svg."""
    with file_errors(out):
        (out / JSON_FILE).write_text(figures.model_dump_json() + "\n", encoding="utf-8")
    draw(figures, out / PLOT_FILE)


if __name__ == "__main__":
    typer.run(main)
