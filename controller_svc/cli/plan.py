"""`seal run FILE --plan`: what a run would do and take. Nothing is run and no weight is read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from controller_svc.cli import machine as this_machine
from controller_svc.cli.messages import program
from controller_svc.cli.preflight import check_model, check_settings, data_note
from controller_svc.cli.runs import require_run
from controller_svc.cli.workload import (
    TRAIN_SHARE_OF_PEAK,
    WRITE_SHARE_OF_PEAK,
    StageWork,
    read_data,
    round_contexts,
    workload,
)
from controller_svc.core import Phase, RunStatus, is_warm_start
from controller_svc.local.lock import check_free
from controller_svc.runs import find_status
from controller_svc.worker.prepare import load_data
from seal.artifacts import ArtifactStore
from seal.datasets import load_dataset
from seal.domains import get_domain
from seal.domains.base import Context
from seal.errors import InvalidInput, NotFound
from seal.models import is_downloadable, resolve_model
from seal.report.numbers.formats import duration, plural
from seal.resources import RestEMRun
from seal.runs.store import manifest_path
from seal.settings import EngineSettings, RunSpec

if TYPE_CHECKING:
    from seal.engine.shape import MemoryNeed, ModelShape

HEAD = ("stage", "contexts", "edits", "trainings", "steps", "answers", "tokens", "time")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine offers and what the run needs of it; None where the model is not here."""

    gemm_teraflops: float
    weights: int
    needed_bytes: int | None
    """Memory that the engine takes at most; None if it would not start."""
    limit_bytes: int
    slots: int
    """Adapters that it trains at once: those of the setting that fit."""
    refusal: str
    """Why it would not start; empty if it would."""


def show_plan(
    manifest: RestEMRun, *, engine: EngineSettings, root: str, resume: bool, as_json: bool
) -> None:
    """Print the stages of a run with their work, and estimates of time and memory.

    `resume`: of the run that is there, what is left. Without, of a run that would begin now.

    Raises:
        SealError: what `seal run` would refuse before it loads the model; that a run of this name
            exists is only said.
    """
    store = ArtifactStore(root)
    saved = _saved_status(store, manifest, engine, resume=resume)
    exists = resume or store.exists(manifest_path(manifest.name))
    spec = manifest.spec
    data = asyncio.run(read_data(store, manifest)) if resume else load_data(spec)
    works = _left(workload(spec, data), saved)
    machine = _machine(manifest, engine)
    seconds = [
        None
        if machine is None
        else work.seconds(weights=machine.weights, teraflops=machine.gemm_teraflops)
        for work in works
    ]
    if as_json:
        rows = [
            asdict(work) | {"seconds": value} for work, value in zip(works, seconds, strict=True)
        ]
        found = asdict(machine) if machine else None
        facts = {"run": manifest.name, "exists": exists, "stages": rows, "machine": found}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"Plan of {manifest.name}: {_data_line(spec, data)}. Nothing is run.")
    if note := data_note(spec):
        typer.echo(f"{note[0].upper()}{note[1:]}.")
    if not resume and (unanswerable := _unanswerable(spec)):
        typer.echo(f"Left out: {plural(unanswerable, 'question')} without an answer.")
    if note := _run_note(saved, exists=exists):
        typer.echo(note)
    if not works:
        return
    typer.echo("")
    _print_table(_total_name(spec, saved), works, seconds)
    if any(is_warm_start(work.round, work.stage) for work in works):
        typer.echo("\nThe warm start is supervised: it learns gold questions of training passages.")
    typer.echo("\nSteps, tokens and time are estimates: the edits are not written yet.")
    typer.echo("\n".join(_machine_lines(manifest, engine, machine)))
    takes_long = machine is None or sum(value or 0.0 for value in seconds) >= COMPARED_SECONDS
    if takes_long and (line := _accelerator_line(spec, machine, works)):
        typer.echo(line)


def _saved_status(
    store: ArtifactStore, manifest: RestEMRun, engine: EngineSettings, *, resume: bool
) -> RunStatus | None:
    """Refuse what `seal run` would refuse, in its order; where a run to resume would go on."""
    store.check_place()
    if resume:
        require_run(store, manifest.name)
        check_free(store, manifest.name)
    check_settings(manifest.spec, engine)
    return asyncio.run(find_status(store, manifest, resume=True)) if resume else None


def _left(works: Sequence[StageWork], saved: RunStatus | None) -> Sequence[StageWork]:
    """The stages that are not finished, the one under way as a whole."""
    if saved is not None and saved.phase is Phase.COMPLETE:
        return ()
    if saved is None or saved.stage is None:
        return works
    places = [(work.round, work.stage) for work in works]
    return works[places.index((saved.round, saved.stage)) :]


def _run_note(saved: RunStatus | None, *, exists: bool) -> str:
    """What is to be said of a run that is there already; empty if there is none."""
    if saved is None:
        again = "A run of that name exists already; --resume plans what is left of it."
        return again if exists else ""
    if saved.phase is Phase.COMPLETE:
        return "The run is complete: nothing is left to do, unless it is given more rounds."
    return "This is what is left of it; of the stage under way, what is finished is not done again."


def _total_name(spec: RunSpec, saved: RunStatus | None) -> str:
    return f"all, {plural(spec.rounds, 'round')}" if saved is None else "all that is left"


def _machine(manifest: RestEMRun, engine: EngineSettings) -> Machine | None:
    """Look at this machine, if the model is on it; the settings are checked on the way."""
    try:
        directory = resolve_model(manifest.spec.model, offline=True).path
    except NotFound:
        if not is_downloadable(manifest.spec.model):
            raise
        return None
    try:
        from seal.engine.shape import memory_need, read_shape
    except ImportError as error:
        raise this_machine.engine_missing(error) from error
    _, teraflops = this_machine.gemm_peak(engine)
    shape: ModelShape = read_shape(
        directory, name=manifest.spec.model, dtype=engine.dtype, device=engine.device
    )
    check_model(manifest.spec, engine, shape)
    need: MemoryNeed | None = None
    refusal = ""
    try:
        need = memory_need(shape, engine)
    except InvalidInput as error:
        refusal = str(error)
    return Machine(
        gemm_teraflops=teraflops,
        weights=shape.weights,
        needed_bytes=need.needed_bytes if need else None,
        limit_bytes=need.limit_bytes if need else 0,
        slots=need.slots if need else 0,
        refusal=refusal,
    )


def _data_line(spec: RunSpec, data: Mapping[str, Sequence[Context]]) -> str:
    one = get_domain(spec.domain).words.context
    given, validation = len(data["train"]), len(data["validation"])
    train = len(round_contexts(spec, data["train"]))
    of = f" of {given}" if train < given else ""
    learn = f"{train}{of} {one if given == 1 else f'{one}s'} to learn from, "
    return f"{learn if train else ''}{plural(validation, one)} to measure on"


def _unanswerable(spec: RunSpec) -> int:
    """Questions of the run's own files that are left out, as they have no answer."""
    sources = (spec.data.train if spec.learns else "", spec.data.validation, spec.data.retained)
    domain = get_domain(spec.domain)
    return sum(
        load_dataset(source, domain=domain).unanswerable
        for source in dict.fromkeys(sources)
        if source
    )


def _print_table(
    total_name: str, works: Sequence[StageWork], seconds: Sequence[float | None]
) -> None:
    """Rows of at most 80 columns."""
    rows = [HEAD, *(_cells(work, value) for work, value in zip(works, seconds, strict=True))]
    known = [value for value in seconds if value is not None]
    total = duration(sum(known)) if len(known) == len(seconds) else "–"
    sums = [sum(getattr(work, name) for work in works) for name in ("edits", "trainings", "steps")]
    answers, tokens = sum(work.answers for work in works), sum(_tokens(work) for work in works)
    counts = (_count(number) for number in (*sums, answers, tokens))
    rows.append((total_name, "", *counts, total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo("  ".join([first, *others]).rstrip())


def _cells(work: StageWork, seconds: float | None) -> tuple[str, ...]:
    numbers = (work.contexts, work.edits, work.trainings, work.steps, work.answers, _tokens(work))
    warm = is_warm_start(work.round, work.stage)
    return (
        "round 0, warm start" if warm else f"round {work.round}, {work.stage}",
        *(_count(number) for number in numbers),
        "–" if seconds is None else duration(seconds),
    )


def _tokens(work: StageWork) -> int:
    """All tokens that pass through the model."""
    return (
        work.train_tokens
        + work.edit_tokens
        + work.edit_prompt_tokens
        + work.answer_tokens
        + work.question_tokens
    )


def _count(number: int) -> str:
    """A whole number, long ones rounded: 940, 12k, 3.4M; a dash for none."""
    if number < 10_000:
        return str(number) if number else "–"
    if number < 999_500:  # which would be 1000k
        return f"{number / 1e3:.0f}k"
    return f"{number / 1e6:.1f}M" if number < 999_950_000 else f"{number / 1e9:.1f}G"


H100_TFLOPS = 989.0
"""Of one H100 by its data sheet: bfloat16, dense."""
H100_GEMM_SHARE = 2 / 3
"""What large matrix products reach of it. An assumption: an H200's reach 0.79 (docs/gpu.md)."""
COMPARED_SECONDS = 3600
"""A run that takes this machine less needs no other one."""
LEAST_HOURS = 0.001
"""Less is not told apart."""
_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[Bb](?![A-Za-z0-9])")


def _accelerator_line(spec: RunSpec, machine: Machine | None, works: Sequence[StageWork]) -> str:
    """What the whole would take on one H100; empty where nobody knows how large the model is."""
    named = _SIZE_IN_NAME.search(spec.model)
    weights = machine.weights if machine else round(float(named[1]) * 1e9) if named else 0
    if not weights:
        return ""
    gemm = H100_GEMM_SHARE * H100_TFLOPS
    hours = sum(work.seconds(weights=weights, teraflops=gemm) for work in works) / 3600
    shown = f"about {hours:.1f}" if hours >= 1 else f"about {hours:.2g}"
    shown = shown if hours >= LEAST_HOURS else f"less than {LEAST_HOURS}"
    size = (
        " in place of this machine"
        if machine
        else f" with {weights / 1e9:g} billion weights, as the model's name says,"
    )
    read, write = TRAIN_SHARE_OF_PEAK * gemm, WRITE_SHARE_OF_PEAK * gemm
    return (
        f"On one H100{size} {shown} hours, if it trains and reads at {read:.0f} TFLOP/s and "
        f"writes at {write:.0f}, of the {H100_TFLOPS:.0f} of its data sheet; an H200 "
        "trained a 7B model at 42 % of its peak with 32 slots and at 1 % with one."
    )


def _machine_lines(
    manifest: RestEMRun, engine: EngineSettings, machine: Machine | None
) -> list[str]:
    model = manifest.spec.model
    if machine is None:
        return [
            f"Model {model} is not on this machine, so nothing is said of time and memory; "
            f"get it with:  {program()} models pull {model}"
        ]
    lines = [
        f"Model {model}, {machine.weights / 1e6:,.0f} million weights; measured GEMM peak "
        f"{machine.gemm_teraflops:.2f} TFLOP/s on {engine.device}; a busy machine "
        "measures slow."
    ]
    if machine.needed_bytes is None:
        return [*lines, f"Memory: the engine would not start: {machine.refusal}"]
    return [
        *lines,
        f"Memory: at most {machine.needed_bytes / GIB:.1f} GiB for {machine.slots} slots, of "
        f"{machine.limit_bytes / GIB:.1f} GiB there are; Python takes half a GiB more.",
    ]
