"""`python -m benchmarks.run`.

Measure figures, merge them into docs/benchmarks.json and render docs/benchmarks.md. Figures that
are not measured again keep their place in the file. What is measured is written after every group,
so that a run that is stopped keeps what it has.
"""

from __future__ import annotations

import inspect
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from benchmarks import (
    active_runs,
    agreement,
    controller,
    evaluation,
    exactness,
    few_shot,
    front_door,
    memory,
    scaling,
    services,
    step_profile,
    training_speed,
)
from benchmarks.common import Dtype, Report, Setting, machine_line
from benchmarks.data import load_cases
from benchmarks.figures import (
    BY_NAME_ONLY,
    DEFAULT_KEYS,
    KEYS,
    Figures,
    Provenance,
    in_order,
    read_figures,
    write_figures,
)
from benchmarks.render import PLOT_FILE, draw_plot, read_notes, render_markdown, render_table
from benchmarks.sizes import parse_sizes
from seal.engine.allocator import keep_freed_memory
from seal.engine.precision import compute_dtype
from seal.engine.threads import compute_serially
from seal.errors import InvalidInput, SealError, error_class
from seal.files import file_errors
from seal.models import resolve_model
from seal.telemetry import configure_logging

NOTES = Path(__file__).parent / "notes.md"
JSON_FILE, PAGE_FILE = "benchmarks.json", "benchmarks.md"


class Output(StrEnum):
    """How the result is printed."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Group:
    """Figures that one run measures together."""

    keys: tuple[str, ...]
    measure: Callable[[Setting, Collection[str]], Figures]
    method: str
    """What is done, for the page: the module's docstring."""


GROUPS = tuple(
    Group(module.KEYS, module.measure, inspect.getdoc(module) or "")
    for module in (
        training_speed,
        exactness,
        evaluation,
        agreement,
        services,
        front_door,
        few_shot,
        controller,
        active_runs,
        scaling,
        memory,
        step_profile,
    )
)


def run_benchmarks(
    setting: Setting, wanted: Collection[str], *, docs: Path, notes: Path
) -> tuple[Figures, list[SealError]]:
    """Measure the wanted figures and write JSON, page and plot into `docs`.

    Gives all figures there are, and what could not be measured.
    """
    laid_in = read_notes(notes)
    figures = read_figures(docs / JSON_FILE)
    errors: list[SealError] = []
    for group in GROUPS:
        keys = [key for key in group.keys if key in wanted]
        if not keys:
            continue
        started = time.perf_counter()
        try:
            measured = group.measure(setting, keys)
        except SealError as error:
            errors.append(error)
            continue
        seconds = time.perf_counter() - started
        figures |= {
            key: figure.model_copy(update={"seconds": seconds}) for key, figure in measured.items()
        }
        write_figures(docs / JSON_FILE, figures)
        _write_page(figures, laid_in, docs)
    return figures, errors


def render(docs: Path, notes: Path) -> Figures:
    """Render the page again from what was measured, for example after a change of the notes."""
    figures = read_figures(docs / JSON_FILE)
    _write_page(figures, read_notes(notes), docs)
    return figures


def _write_page(figures: Figures, notes: Mapping[str, str], docs: Path) -> None:
    draw_plot(figures, docs / PLOT_FILE)
    methods = [group.method for group in GROUPS if set(group.keys) & set(figures)]
    with file_errors(docs / PAGE_FILE):
        (docs / PAGE_FILE).write_text(render_markdown(figures, notes, methods), encoding="utf-8")


def parse_only(only: str) -> tuple[str, ...]:
    """Keys from `P1,P3`; those that discriminate for nothing.

    Raises InvalidInput for a key that is none.
    """
    wanted = [key.strip() for key in only.split(",") if key.strip()]
    if unknown := sorted(set(wanted) - set(KEYS)):
        raise InvalidInput(
            f"--only: {unknown[0]!r} is no figure",
            field="only",
            remedy="use some of: " + ", ".join(KEYS),
        )
    return tuple(in_order(set(wanted))) or DEFAULT_KEYS


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """A bar on stderr for what is measured."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading", total=None)

        def report(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield report


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[
        str, typer.Option(help="Base model: smollm2-135m, a directory, file:// or hf://org/model.")
    ] = "smollm2-135m",
    edits: Annotated[
        Path | None,
        typer.Option(help="SEAL's log of self-edits, rank_iter0.json.", show_default=False),
    ] = None,
    squad: Annotated[
        Path | None,
        typer.Option(
            help="Passages with questions to derive edits from, if there is no log; else the "
            "embedded corpus."
        ),
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Type that both sides compute in; auto takes bfloat16 where the machine "
            "multiplies it in hardware."
        ),
    ] = Dtype.AUTO,
    only: Annotated[
        str,
        typer.Option(
            help="Figures to measure, for example P1,P3,slots; if empty all but "
            + ", ".join(BY_NAME_ONLY)
            + ", which take long."
        ),
    ] = "",
    size: Annotated[
        list[str] | None, typer.Option(help="FIELD=VALUE of benchmarks/sizes.py; may be repeated.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Small sizes, to try the harness; the figures mean nothing."),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Directory of benchmarks.json, benchmarks.md and the plot.")
    ] = Path("docs"),
    notes: Annotated[
        Path, typer.Option(help="Text that is laid in under the figures' headings.")
    ] = NOTES,
    output: Annotated[Output, typer.Option(help="What is printed.")] = Output.TABLE,
    render_only: Annotated[
        bool, typer.Option("--render-only", help="Measure nothing; render the page again.")
    ] = False,
) -> None:
    """Measure the engine against its opponents.

    Writes docs/benchmarks.json and docs/benchmarks.md.
    """
    _quiet()
    keep_freed_memory()  # as Engine.load does; both sides have it
    compute_serially()
    console = Console(stderr=True, highlight=False)
    try:
        wanted, sizes = parse_only(only), parse_sizes(size or (), quick=quick)
        if render_only:
            figures, errors = render(out, notes), list[SealError]()
        else:
            with _progress(console) as report:
                directory = resolve_model(model).path
                cases = load_cases(edits=edits, passages=squad)
                compute = compute_dtype(dtype.value, "cpu")
                provenance = Provenance(
                    command=_command(),
                    machine=machine_line(compute),
                    data=cases.source,
                    model=model,
                )
                setting = Setting(
                    model=model,
                    directory=directory,
                    dtype=compute,
                    sizes=sizes,
                    cases=cases,
                    provenance=provenance,
                    report=report,
                )
                figures, errors = run_benchmarks(setting, wanted, docs=out, notes=notes)
    except SealError as error:
        raise typer.Exit(_complain(console, [error])) from error
    if output is Output.JSON:
        typer.echo((out / JSON_FILE).read_text(encoding="utf-8"), nl=False)
    else:
        Console(highlight=False).print(Markdown(render_table(figures)))
        console.print(f"Page  {out / PAGE_FILE}\nData  {out / JSON_FILE}")
    if errors:
        raise typer.Exit(_complain(console, errors))


def _complain(console: Console, errors: Iterable[SealError]) -> int:
    """Say what went wrong; the exit code of the first error."""
    codes = []
    for error in errors:
        console.print(f"error: {error}", style="red", markup=False)
        codes.append(error_class(error).exit_code)
    return codes[0]


def _quiet() -> None:
    """Only the bar and the result on the terminal."""
    configure_logging("error")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _command() -> str:
    """The command of this process as a user types it, with the last part of every path."""
    return shlex.join(
        [
            "python",
            "-m",
            "benchmarks.run",
            *(Path(part).name if "/" in part else part for part in sys.argv[1:]),
        ]
    )


if __name__ == "__main__":
    app()
