"""The result in the terminal: what the report page shows first, as tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seal.report.numbers.formats import (
    METRIC_NAMES,
    counts,
    duration,
    percent,
    plain,
    plural,
    score,
    with_interval,
)
from seal.report.numbers.model import Metric, Report, ScoreRow

LEAST_WIDTH = 124
"""Columns where the output is no terminal, so that no cell is folded."""


def print_tables(report: Report, *, html: str, json: str) -> None:
    """All tables, notes and paths on stdout."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else LEAST_WIDTH
    console = Console(width=width, highlight=False)
    console.print()
    for table in (_results(report), _retained(report), _rounds(report), _stages(report)):
        if table is not None:
            console.print(table)
    for note in report.notes:
        console.print(Text("note: ", style="bold").append(note, style="default"))
    console.print(Text(f"Intervals: {report.interval}.", style="dim"))
    console.print(f"\nReport  {html}\nData    {json}", markup=False, soft_wrap=True)


def _table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1
) -> Table | None:
    """A table whose first `words` columns are text and the others numbers; None without rows."""
    if not rows:
        return None
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column, name in enumerate(head):
        table.add_column(name, justify="right" if column >= words else "left", no_wrap=column == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _results(report: Report) -> Table | None:
    """Base, passage only, self-edits by round, gold."""
    grader = report.spec.evaluation.grader
    reward: Metric | None = None if grader == "contains" else "score"
    head = ["trained on", "accuracy", "exact", "F1", "log p", "accuracy\nover passage only"]
    head += [f"{METRIC_NAMES[grader]}\nover passage only"] if reward else []
    passages = plural(report.validation_passages, "passage")
    questions = plural(report.validation_questions, "question")
    title = f"Validation, {passages}, {questions} [95 % interval]"
    return _table(title, head, [_result_row(row, grader, reward) for row in report.rows])


def _result_row(row: ScoreRow, grader: str, reward: Metric | None) -> list[str]:
    cells = [
        row.label,
        with_interval(row.metrics["contains"], "contains", grader),
        percent(row.metrics["exact"].mean),
        plain(row.metrics["f1"].mean),
        plain(row.metrics["logprob"].mean, digits=2),
        with_interval(row.over_passage.get("contains"), "contains", grader, signed=True),
    ]
    return cells + (
        [with_interval(row.over_passage.get(reward), reward, grader, signed=True)] if reward else []
    )


def _retained(report: Report) -> Table | None:
    """What is forgotten."""
    rows = [
        [row.label, str(row.answers), with_interval(row.accuracy, "contains", "contains"),
         with_interval(row.accuracy_change, "contains", "contains", signed=True)]
        for row in report.retained
    ]  # fmt: skip
    return _table(
        "Retained: open-book questions on other passages",
        ["model", "answers", "accuracy", "change by adapting"],
        rows,
    )


def _rounds(report: Report) -> Table | None:
    """Candidates and what was kept."""
    grader = report.spec.evaluation.grader
    rows = [
        [
            f"round {rollout.round}",
            counts({name: n for name, n in rollout.decisions.items() if name != "kept"}),
            str(rollout.candidates),
            str(rollout.kept) if rollout.selection_sha256 else "–",
            score(rollout.baseline.mean, "score", grader),
            score(rollout.reward.mean, "score", grader),
            f"{rollout.better}/{rollout.equal}/{rollout.worse}",
        ]
        for rollout in report.rollouts
    ]
    head = ["rollout", "dropped", "edits", "kept", "before", "mean reward", "better/equal/worse"]
    return _table(
        f"Self-edits of the rollouts, reward: {METRIC_NAMES[grader]}", head, rows, words=2
    )


def _stages(report: Report) -> Table | None:
    """Time and work."""
    rows = [
        [
            f"round {stage.round}, {stage.stage}",
            counts({name: n for name, n in stage.outcomes.items() if name != "ok"}),
            str(stage.inner_loops_run),
            str(stage.inner_loops_resumed),
            duration(stage.seconds),
        ]
        for stage in report.stages
    ]
    run, resumed = (
        sum(getattr(stage, name) for stage in report.stages)
        for name in ("inner_loops_run", "inner_loops_resumed")
    )
    rows.append(["all", "", str(run), str(resumed), duration(report.seconds)])
    return _table(
        "Stages",
        ["stage", "without score", "inner loops run", "resumed", "time"],
        rows if report.stages else [],
        words=2,
    )
