"""The result in the terminal: what the report page shows first, as tables of 80 columns."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seal.report.numbers.comparisons import comparisons
from seal.report.numbers.formats import (
    METRIC_NAMES,
    MISSING,
    NBSP,
    counts,
    duration,
    kept,
    listed,
    percent,
    plain,
    plural,
    score,
    storage,
    with_interval,
)
from seal.report.numbers.model import Metric, Report, ScoreRow

WIDTH = 80
"""Columns into which every table fits, whatever its numbers are. A narrower terminal wraps lines;
a number is never cut."""
WORDS_COLUMNS = 20
"""Columns of a cell of words, which is folded between its items."""


def print_tables(report: Report, *, html: str, json: str) -> None:
    """What came out, all tables, notes and paths on stdout."""
    width = max(WIDTH, shutil.get_terminal_size(fallback=(WIDTH, 24)).columns)
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        _print(console, report, html=html, json=json)
    text = captured.get()
    if not console.is_terminal:  # a table's lines are filled up with blanks
        text = "".join(f"{line.rstrip(' ')}\n" for line in text.splitlines())
    sys.stdout.write(text)


def _print(console: Console, report: Report, *, html: str, json: str) -> None:
    console.print()
    console.print(Text(report.headline, style="bold"))
    console.print()
    tables = (
        _results(report),
        *_differences(report),
        _retained(report),
        _rounds(report),
        _stages(report),
    )
    for table in tables:
        if table is not None:
            console.print(table)
    if kept := report.kept_bytes:
        sizes = (f"round {each} {storage(sum(kinds.values()))}" for each, kinds in kept.items())
        console.print(Text(f"Kept in the store: {', '.join(sizes)}."))
    for note in report.notes:
        console.print(Text("note: ", style="bold").append(note, style="default"))
    console.print(Text(f"Intervals: {report.interval}.", style="dim"))
    console.print(f"\nReport  {html}\nData    {json}", markup=False, soft_wrap=True)


def _table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int] = (0,)
) -> Table | None:
    """A table in which all but the columns of `words` are numbers; None without rows."""
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
        table.add_column(name, justify="left" if column in words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _results(report: Report) -> Table | None:
    """Base, passage only, self-edits by round, gold."""
    grader = report.spec.evaluation.grader
    passages = plural(report.validation_passages, "passage")
    questions = plural(report.validation_questions, "question")
    return _table(
        f"Validation, {passages}, {questions} [95 % interval]",
        ["trained on", "accuracy", "exact", "F1", "log p"],
        [_result_row(row, grader) for row in report.rows],
    )


def _result_row(row: ScoreRow, grader: str) -> list[str]:
    return [
        row.label,
        with_interval(row.metrics["contains"], "contains", grader),
        percent(row.metrics["exact"].mean),
        plain(row.metrics["f1"].mean),
        plain(row.metrics["logprob"].mean, digits=2),
    ]


def _differences(report: Report) -> list[Table | None]:
    """Each comparison with its verdict, by accuracy and by the run's reward."""
    grader = report.spec.evaluation.grader
    metrics: tuple[Metric, ...] = ("contains",) if grader == "contains" else ("contains", "score")
    titles = {"contains": "accuracy", "score": f"{METRIC_NAMES[grader]}, the reward"}
    names = {"contains": "accuracy, points", "score": METRIC_NAMES[grader]}
    return [
        _table(
            f"Differences in {titles[metric]}, passage by passage [95 % interval]",
            ["first minus second", names[metric], "verdict"],
            [
                [
                    each.name,
                    with_interval(each.over[metric], metric, grader, signed=True),
                    each.over[metric].verdict.value,
                ]
                for each in comparisons(report.rows)
            ],
            words=(0, 2),
        )
        for metric in metrics
    ]


def _retained(report: Report) -> Table | None:
    """What is forgotten."""
    rows = [
        [
            row.label,
            with_interval(row.accuracy, "contains", "contains"),
            with_interval(row.accuracy_change, "contains", "contains", signed=True),
        ]
        for row in report.retained
    ]
    return _table(
        "Retained: open-book questions on other passages",
        ["model", "accuracy", "change by adapting"],
        rows,
    )


def _rounds(report: Report) -> Table | None:
    """Candidates and what was kept."""
    grader = report.spec.evaluation.grader
    rows = [
        [
            str(rollout.round),
            str(rollout.candidates),
            kept(rollout),
            score(rollout.baseline.mean, "score", grader),
            score(rollout.reward.mean, "score", grader),
            f"{rollout.better}/{rollout.equal}/{rollout.worse}",
            _folded({name: n for name, n in rollout.decisions.items() if name != "kept"}),
        ]
        for rollout in report.rollouts
    ]
    label = listed(sorted({rollout.label for rollout in report.rollouts} - {""}))
    named = f" ({label})" if label else ""
    return _table(
        f"Self-edits of the rollouts{named}, reward: {METRIC_NAMES[grader]}",
        ["round", "edits", "kept", "before", "reward", "better/same/worse", "dropped"],
        rows,
        words=(6,),
    )


def _stages(report: Report) -> Table | None:
    """Time and work."""
    rows = [
        [
            f"round {stage.round}, {stage.stage}",
            str(stage.inner_loops_run),
            str(stage.inner_loops_resumed),
            duration(stage.seconds),
            _folded({name: n for name, n in stage.outcomes.items() if name != "ok"}),
        ]
        for stage in report.stages
    ]
    run, resumed = (
        sum(getattr(stage, name) for stage in report.stages)
        for name in ("inner_loops_run", "inner_loops_resumed")
    )
    rows.append(["all", str(run), str(resumed), duration(report.seconds), ""])
    return _table(
        "Stages",
        ["stage", "inner loops run", "resumed", "time", "without score"],
        rows if report.stages else [],
        words=(0, 4),
    )


def _folded(values: Mapping[str, int]) -> str:
    """Counts in lines of at most `WORDS_COLUMNS`, a number never apart from its name."""
    items = [counts({name: n}).replace(" ", NBSP) for name, n in values.items() if n]
    lines = textwrap.wrap(", ".join(items), WORDS_COLUMNS, break_on_hyphens=False)
    return "\n".join(lines) or MISSING
