"""The runs below a root: finding them, and `seal list`, `status`, `logs` and `rm`."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from controller_svc.cli import STOPPED as STOPPED_CODE
from controller_svc.cli.adapters import adapters_of, print_adapters
from controller_svc.cli.logs import LOG_FILE, human_line
from controller_svc.cli.messages import program
from controller_svc.cli.roots import existing_store, local_directory, shown
from controller_svc.core import RunStatus, round_name
from controller_svc.local.lock import LOCK_FILE, check_free, run_lock
from controller_svc.local.objects import Objects
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Internal, InvalidInput, NotFound, PreconditionFailed
from seal.files import file_errors
from seal.records import WARM_START
from seal.report.numbers.formats import duration
from seal.resources import RestEMRun
from seal.runs.store import manifest_path, prepared_path, status_path
from seal.telemetry import harmless

LIVE = "running now"
"""What is said of a run that a process of this machine works at."""
UNREADABLE = "Unreadable"
"""Phase of a run whose manifest or status is damaged, or of another version."""
STOPPED = "Stopped"
"""What is said of a run that is not finished and that nobody works at."""
RESUME_HINT = "go on by the command that began it, with --resume (`seal demo` without)"


@dataclass(frozen=True, kw_only=True)
class PolicyLine:
    """A policy that a round has trained."""

    round: int
    supervised: bool
    """It learnt gold pairs: a warm start."""
    label: str
    """What must be said of its round wherever it is shown; empty for most."""
    sha256: str
    path: str
    """Store-relative."""


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One run in a list."""

    name: str
    phase: str
    """Phase of the saved status; `Created` without one, `Unreadable` with a damaged one."""
    live: bool
    """A process of this machine works at it."""
    stopped: bool = False
    """It is not finished, and nobody works at it; never so in an object store, which has no
    locks."""
    round: int = 0
    rounds: int = 0
    stage: str = ""
    message: str = ""
    """Why it failed or cannot be read; else empty."""
    supervised: bool = False
    """Its policy of round 0 has learnt gold pairs (a warm start), and its rounds go on from it."""
    policies: tuple[PolicyLine, ...] = ()
    """One per round that has a policy of its own."""
    model: str = ""
    started_seconds: float | None = None
    """Unix time."""
    finished_seconds: float | None = None


def runs_in(store: ArtifactStore) -> tuple[str, ...]:
    """Names of all runs below a root, sorted."""
    if (directory := local_directory(store)) is not None:
        with file_errors(directory):
            return tuple(sorted(path.parent.name for path in directory.glob("*/run.json")))
    found = (path.split("/") for path in store.list() if path.endswith("/run.json"))
    return tuple(sorted(parts[0] for parts in found if len(parts) == 2))


def require_run(store: ArtifactStore, run: str) -> None:
    """Raise NotFound naming runs of similar names, or all, if there is no such run.

    InvalidInput for a name of no characters.
    """
    require_name(run)
    if is_name(run) and store.exists(manifest_path(run)):
        return
    names = runs_in(store)
    near = difflib.get_close_matches(run, names, n=3, cutoff=0.5)
    raise NotFound(
        f"there is no run {run!r} in {shown(store.root_uri)}",
        field="metadata.name",
        remedy=f"it is an adaptation:  {program()} get {run}"
        if run in {one.object.name for one in Objects(store).all()}
        else f"did you mean {' or '.join(near)}?"
        if near
        else f"there are: {', '.join(names[:10])}"
        if names
        else "there are no runs yet; --root says where they are kept",
    )


def is_name(run: str) -> bool:
    """Whether a run can be called so: all else is a directory or a URI."""
    return "/" not in run and run not in (".", "..")


def require_name(run: str) -> None:
    """Raise InvalidInput if no name or directory is given."""
    if not run.strip():
        raise InvalidInput(
            "RUN is empty", field="RUN", remedy="is a variable of the shell not set?"
        )


def is_live(store: ArtifactStore, run: str) -> bool:
    """Whether another process of this machine works at a run."""
    try:
        check_free(store, run)
    except Conflict:
        return True
    return False


def line_of(store: ArtifactStore, run: str) -> RunLine:
    """What a list says of a run."""
    manifest = store.read_json(manifest_path(run), RestEMRun)
    status = store.find_json(status_path(run), RunStatus)
    failed = status.condition("Failed") if status else None
    live, ended = is_live(store, run), status is not None and status.phase.terminal
    return RunLine(
        name=run,
        phase=str(status.phase) if status else "Created",
        live=live,
        stopped=not live and not ended and local_directory(store) is not None,
        round=status.round if status else 0,
        rounds=manifest.spec.rounds,
        stage=str(status.stage or "") if status else "",
        message=failed.message if failed and failed.status == "True" else "",
        supervised=any(policy.supervised for policy in status.policies) if status else False,
        policies=_policies(status) if status else (),
        model=manifest.spec.model,
        started_seconds=status.started_seconds if status else None,
        finished_seconds=status.finished_seconds if status else None,
    )


def listed(store: ArtifactStore) -> list[RunLine]:
    """What a list says of all runs; of one that has been deleted meanwhile nothing."""
    lines = []
    for run in runs_in(store):
        with suppress(NotFound):
            lines.append(_readable(store, run))
    return lines


def _readable(store: ArtifactStore, run: str) -> RunLine:
    """What a list says of a run: of one that cannot be read why, as it is to hide no other."""
    try:
        return line_of(store, run)
    except (Internal, InvalidInput, PreconditionFailed) as error:
        return RunLine(
            name=run,
            phase=UNREADABLE,
            live=is_live(store, run),
            message=f"{error.message}; {error.remedy}",
        )


def _policies(status: RunStatus) -> tuple[PolicyLine, ...]:
    labels = {entry.round: entry.label for entry in status.rounds}
    return tuple(
        PolicyLine(
            round=policy.round,
            supervised=policy.supervised,
            label=labels.get(policy.round, ""),
            sha256=policy.adapter.sha256,
            path=policy.adapter.path,
        )
        for policy in status.policies
        if policy.adapter is not None and policy.trained
    )


def print_runs(lines: Sequence[RunLine]) -> None:
    """Runs, a line each."""
    rows = [("NAME", "PHASE", "ROUND", "STAGE", "STARTED", "TOOK"), *map(_cells, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
    if warmed := [line.name for line in lines if line.supervised]:
        typer.echo(f"{WARM_START.capitalize()}: {', '.join(warmed)}.")
    for line in lines:
        if line.phase == UNREADABLE:
            typer.echo(f"{line.name} cannot be read: {line.message}")
    if any(line.stopped for line in lines):
        typer.echo(f"{STOPPED}: {RESUME_HINT}.")


def _cells(line: RunLine) -> tuple[str, ...]:
    return (
        line.name,
        f"{line.phase} ({LIVE})" if line.live else STOPPED if line.stopped else line.phase,
        f"{line.round}/{line.rounds}",
        line.stage,
        _when(line.started_seconds),
        _took(line),
    )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _took(line: RunLine) -> str:
    if line.started_seconds is None or line.finished_seconds is None:
        return ""
    return duration(line.finished_seconds - line.started_seconds)


def show_status(root: str, run: str, *, adapters: bool, as_json: bool) -> None:
    """Print where a run is; with `adapters`, which adapter belongs to which passage.

    Raises:
        NotFound: there is no such run.
    """
    store = existing_store(root)
    require_run(store, run)
    line = line_of(store, run)
    found = list(adapters_of(store, run)) if adapters else []
    if as_json:
        more = {"adapters": [asdict(one) for one in found]} if adapters else {}
        typer.echo(json.dumps(asdict(line) | more, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, value in _facts(store, line):
        console.print(Text(f"{name:<9}", style="bold").append(harmless(value), style="default"))
    if adapters:
        print_adapters(console, found)


def _facts(store: ArtifactStore, line: RunLine) -> Iterator[tuple[str, str]]:
    yield "run", line.name
    stopped = f"{STOPPED}; {RESUME_HINT}"
    yield "phase", f"{line.phase}, {LIVE}" if line.live else stopped if line.stopped else line.phase
    status = store.find_json(status_path(line.name), RunStatus)
    name = round_name(status, line.round) if status else f"round {line.round}"
    yield (
        "round",
        f"{name.removeprefix('round ')} of {line.rounds}"
        + (f", {line.stage}" if line.stage else ""),
    )
    if status and (current := status.current) is not None:
        yield "shards", f"{current.completed or 'none'} of {current.shards} finished"
        if current.message:
            yield "message", current.message
    yield "model", line.model
    if line.started_seconds is not None:
        yield "started", _when(line.started_seconds)
    if took := _took(line):
        yield "took", took
    if line.message:
        yield "failed", line.message
    if line.supervised:
        yield "start", WARM_START
    if line.policies and status:
        last = line.policies[-1]
        yield "policy", f"{shown(store.uri(last.path))}, of {round_name(status, last.round)}"
    yield "files", shown(store.uri(line.name))


def show_logs(root: str, run: str, *, follow: bool, as_json: bool) -> None:
    """Print what a run logged on this machine; `follow`: go on until it ends.

    Raises:
        NotFound: there is no such run, or it has no log here.
        InvalidInput: the root is an object store, where runs of a laptop leave no log.
    """
    store = existing_store(root)
    directory = local_directory(store)
    if directory is None:
        raise InvalidInput(
            f"runs in {store.root_uri} keep no log file",
            field="--root",
            remedy="give the directory of a local root",
        )
    require_run(store, run)
    path = directory / run / LOG_FILE
    if not path.exists():
        raise NotFound(f"{run} has no log: {path} is not there", remedy="it is written from now on")
    with file_errors(path), path.open(encoding="utf-8", errors="replace") as handle:
        try:
            while True:
                goes_on = follow and is_live(store, run)  # before: what ends it is logged, too
                for text in handle:
                    sys.stdout.write(text if as_json else f"{human_line(text)}\n")
                sys.stdout.flush()
                if not goes_on:
                    return
                time.sleep(0.5)
        except KeyboardInterrupt:  # how whoever follows a log leaves it: nothing to tell
            raise typer.Exit(STOPPED_CODE) from None


def remove_run(store: ArtifactStore, run: str) -> None:
    """Delete a run with all that lies in its directory, its adapters included.

    Nobody else works at it until it is gone. Interrupted, it is still a run, which the next call
    deletes: were results left behind, a new run of this name would take them for its own.

    Raises:
        NotFound: there is no such run.
        Conflict: a process works at it.
    """
    require_run(store, run)
    pins = (prepared_path(run), manifest_path(run))
    with run_lock(store, run):
        if (directory := local_directory(store)) is not None:
            _remove_locked(directory / run, last=[directory / path for path in pins])
            return
        for path in (*(set(store.list(run)) - set(pins)), *pins):
            store.remove(path)


def _remove_locked(directory: Path, *, last: Sequence[Path]) -> None:
    """Delete a run's directory whose lock is held: some files at the end, then the lock."""
    lock = directory / LOCK_FILE
    with file_errors(directory):
        for path in set(directory.iterdir()) - {*last, lock}:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in (*last, lock):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: the name is free, and somebody has begun anew
            directory.rmdir()


def confirm_and_remove(root: str, runs: list[str], *, yes: bool, as_json: bool) -> None:
    """Delete runs once it is certain that this is meant: a line for each, or all of them as JSON.

    Raises:
        NotFound: there is no such run.
        Conflict: a process works at one; nothing is deleted then.
        InvalidInput: there is nobody to ask, and no --yes.
    """
    store, runs = existing_store(root), list(dict.fromkeys(runs))
    for run in runs:
        require_run(store, run)
        check_free(store, run)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"deleting {', '.join(runs)} has to be confirmed",
                field="--yes",
                remedy="add --yes",
            )
        typer.confirm(
            f"Delete {', '.join(runs)} from {shown(store.root_uri)}, with all results?",
            abort=True,
            err=True,
        )
    for run in runs:
        remove_run(store, run)
        if not as_json:
            typer.echo(f"deleted {run}")
    if as_json:
        typer.echo(json.dumps({"deleted": runs}, ensure_ascii=False))
