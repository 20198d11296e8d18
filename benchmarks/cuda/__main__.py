"""`python -m benchmarks.cuda`: what the engine does on this machine's GPU, in at most 8 minutes.

Nothing is downloaded: the models are random ones of real shapes. Lines are printed as they come and
docs/gpu.json is written after each part, so that a run which is cut off keeps what it has. The page
docs/gpu.md is made from it at the end. The exit code is 1 if a check has failed or a part has ended
with an error. Beside torch and transformers it needs pydantic, structlog and prometheus-client, and
PEFT with accelerate for the published style.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
import transformers

from benchmarks.cuda.bench import Bench, Skipped
from benchmarks.cuda.checks import check
from benchmarks.cuda.inference import measure_decoding, measure_round
from benchmarks.cuda.plan import FULL, TINY
from benchmarks.cuda.report import (
    JSON_FILE,
    PAGE_FILE,
    Line,
    Part,
    Report,
    read_report,
    render,
    write_report,
)
from benchmarks.cuda.training import (
    measure_m_step,
    measure_peaks,
    measure_reference,
    measure_steps,
)

TOTAL_SECONDS = 460.0
"""Of all parts; what comes before the first of them has the rest of 8 minutes."""


@dataclass(frozen=True)
class Task:
    """One part of a run."""

    key: str
    title: str
    budget_seconds: float
    """No figure of the part is begun later; one that has begun is finished."""
    measure: Callable[[Bench], Iterator[Line]]


TASKS = (
    Task("a", "The engine computes what it computes on a CPU", 60, check),
    Task("b", "Peak of the card", 20, measure_peaks),
    Task("c", "Training step, 7B", 90, measure_steps),
    Task("d", "The published style on the same model", 75, measure_reference),
    Task("e", "Decoding, 7B", 60, measure_decoding),
    Task("f", "M-step, 7B, rank 64 on all projections", 45, measure_m_step),
    Task("g", "Inner loops of a whole round, 135M", 110, measure_round),
)


def run(bench: Bench, report: Report, tasks: Sequence[Task], out: Path) -> Report:
    """Measure the parts one after another; each is written as soon as it has ended."""
    begun = time.monotonic()
    for task in tasks:
        part = _measure(bench, task, last=begun + TOTAL_SECONDS)
        report = report.model_copy(update={"parts": (*report.parts, part)})
        write_report(report, out)
    return report


def _measure(bench: Bench, task: Task, *, last: float) -> Part:
    print(f"\n({task.key}) {task.title}", flush=True)
    started, lines = time.monotonic(), list[Line]()
    bench.deadline = min(started + task.budget_seconds, last)
    missing, failed = "", False
    try:
        bench.check_time("all of it", seconds=5)
        for line in task.measure(bench):
            print(f"    {line}", flush=True)
            lines.append(line)
    except Skipped as over:
        missing = str(over)
    except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
        missing, failed = f"{type(error).__name__}: {error}".splitlines()[0], True
    if failed:
        bench.forget()
    if missing:
        print(f"    not measured: {missing}", flush=True)
    seconds = time.monotonic() - started
    print(f"    {seconds:.1f} s", flush=True)
    return Part(
        key=task.key,
        title=task.title,
        seconds=seconds,
        lines=tuple(lines),
        missing=missing,
        failed=failed,
    )


def machine(device: str) -> str:
    """Card, its memory and the versions that matter, in one line."""
    card = platform.processor() or platform.machine()
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        card = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"CUDA {torch.version.cuda}"
        )
    return (
        f"{card}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="all parts, tiny, on a CPU")
    parser.add_argument("--only", default="", help="keys of parts, for example abc; else all")
    parser.add_argument(
        "--out", type=Path, help=f"where the JSON goes; {JSON_FILE}, or with --tiny a temporary one"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page")
    chosen = parser.parse_args(arguments)
    out = chosen.out or (Path(tempfile.mkdtemp()) / JSON_FILE.name if chosen.tiny else JSON_FILE)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if not chosen.render:
        plan = TINY if chosen.tiny else FULL
        if plan.device == "cuda" and not torch.cuda.is_available():
            print("no CUDA device is here; --tiny runs on a CPU", file=sys.stderr)
            return 2
        command = " ".join(["python -m benchmarks.cuda", *(arguments or sys.argv[1:])])
        report = Report(machine=machine(plan.device), command=command, parts=())
        tasks = [task for task in TASKS if task.key in (chosen.only or task.key)]
        run(Bench(plan), report, tasks, out)
    report = read_report(out)
    out.with_name(PAGE_FILE.name).write_text(render(report), encoding="utf-8")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
