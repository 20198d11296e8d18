"""`python -m benchmarks.learning`: make what is missing of the plan, then the page.

python -m benchmarks.learning --natural-train FILE --natural-validation FILE
python -m benchmarks.learning --only validation/reward/0
python -m benchmarks.learning --plan
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils import logging as transformers_logging

from benchmarks.learning.data import Sources, has_data
from benchmarks.learning.execute import Bench, local, run_all, this_machine
from benchmarks.learning.figures import figures_of, published
from benchmarks.learning.forecast import show_plan
from benchmarks.learning.page import PICTURE_FILE, read_notes, render_page
from benchmarks.learning.picture import draw_picture
from benchmarks.learning.plan import (
    CORPORA,
    PLAN,
    TINY,
    Planned,
    pick,
    planned_runs,
    tiny_plan,
)
from benchmarks.learning.settings import check_same_settings
from benchmarks.learning.summary import file_name, read_summaries
from benchmarks.learning.tiny import tiny_files, tiny_model
from controller_svc.cli.options import changes
from seal.config import load_engine_settings
from seal.errors import SealError, error_class
from seal.files import file_errors
from seal.telemetry import configure_logging

NOTES = Path(__file__).parents[1] / "notes-learning.md"
JSON_FILE, PAGE_FILE, SUMMARIES = "learning.json", "learning.md", "learning"


def write_page(docs: Path, notes: Path, *, plan: Sequence[Planned] = PLAN) -> bool:
    """Make page, figures and picture of the summaries there are; False if there are none.

    Raises:
        Conflict: summaries that do not belong together.
        InvalidInput: a file that is no summary.
    """
    summaries = read_summaries(docs / SUMMARIES)
    for summary in summaries[1:]:
        check_same_settings(file_name(summary), summary.settings, summaries[0].settings)
    figures = [one for corpus in CORPORA if (one := figures_of(summaries, corpus)).summaries]
    if not figures:
        return False
    draw_picture(figures, docs / PICTURE_FILE)
    with file_errors(docs):
        (docs / JSON_FILE).write_text(
            json.dumps(published(figures), indent=1) + "\n", encoding="utf-8"
        )
        page = render_page(figures, read_notes(notes), plan=plan)
        (docs / PAGE_FILE).write_text(page, encoding="utf-8")
    return True


def main(
    natural_train: Annotated[
        Path | None,
        typer.Option(help="Natural passages to learn from: a SQuAD file, or any that seal reads."),
    ] = None,
    natural_validation: Annotated[
        Path | None, typer.Option(help="Natural passages to measure on; none of them may be there.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Directory of the runs.")] = Path("seal-runs/learning"),
    docs: Annotated[
        Path, typer.Option(help="Directory of the page; its folder learning has the summaries.")
    ] = Path("docs"),
    notes: Annotated[Path, typer.Option(help="Text that is laid into the page.")] = NOTES,
    only: Annotated[
        str,
        typer.Option(help="Runs to make: natural, natural/reward, natural/reward/0; all if ''."),
    ] = "",
    model: Annotated[str, typer.Option(help="Base model, as in a manifest.")] = "smollm2-135m",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Setting of all arms; repeatable."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Setting of the engine; repeatable."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing; show the runs and their estimated hours.")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render-only", help="Run nothing; make the page again.")
    ] = False,
    tiny: Annotated[
        bool,
        typer.Option(
            "--tiny",
            help="All of it on two passages and a small random model, in a scratch directory "
            "unless --root and --docs are given; the figures mean nothing.",
        ),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never download the model.")] = False,
) -> None:
    """Measure what edits, rounds, the reward and a warm start add, and write the page.

    Stopped at any moment, the same command goes on.
    """
    configure_logging("error")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        table, settings = PLAN, changes(set_ or [])
        sources = Sources(train=natural_train, validation=natural_validation)
        if tiny:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            table, settings = tiny_plan(), {**TINY, **settings}
            root, docs = _instead(root, scratch / "runs"), _instead(docs, scratch / "docs")
            model, sources = tiny_model(root), tiny_files(root, sources)
        runs = planned_runs(table, changes=settings)
        try:
            wanted = pick(runs, only)
            if not only:
                wanted = tuple(run for run in wanted if has_data(run.planned, sources))
            if not render_only:
                options = load_engine_settings("embedded", changes(engine or [], option="--engine"))
                bench = Bench(
                    root=root,
                    out=docs / SUMMARIES,
                    model=model,
                    sources=sources,
                    machine=this_machine(options),
                )
                if plan:
                    show_plan(bench, wanted, runs, offline=offline)
                    return
                asyncio.run(
                    run_all(
                        bench,
                        wanted,
                        all_runs=runs,
                        services=local(model, root=root, engine=options, offline=offline),
                        say=lambda words: console.print(words, markup=False),
                        after=lambda: write_page(docs, notes, plan=table),
                    )
                )
            made = write_page(docs, notes, plan=table)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on")
            raise typer.Exit(130) from None
        except SealError as error:
            console.print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(error_class(error).exit_code) from error
        console.print(f"Page  {docs / PAGE_FILE}" if made else "No run is finished: no page.")


def _instead(path: Path, scratch: Path) -> Path:
    """A scratch directory in place of a default one."""
    defaults = (Path("seal-runs/learning"), Path("docs"))
    return scratch if path in defaults else path


if __name__ == "__main__":
    typer.run(main)
