"""The result in the terminal: what the report page shows first, as tables of 80 columns."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seal.report.numbers.comparisons import comparisons
from seal.report.numbers.formats import (
    GRADER_NAMES,
    MEASURE_NAMES,
    MISSING,
    NBSP,
    counts,
    duration,
    interval,
    kept,
    listed,
    percent,
    plain,
    plural,
    score,
    stage_name,
    storage,
    with_interval,
)
from seal.report.numbers.model import (
    Difference,
    Metric,
    Report,
    Verdict,
    measures_of,
)
from seal.telemetry import harmless

WIDTH = 80
"""Columns into which every table fits, whatever its numbers are. A narrower terminal wraps lines;
a number is never cut."""
WORDS_COLUMNS = 20
"""Columns of a cell of words, which is folded between its items."""
NAME_COLUMNS = 26
"""Columns of the names of rows, which are folded between words."""
VERDICT_WORDS: Mapping[Verdict, str] = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.UNCLEAR: "unclear",
    Verdict.UNKNOWN: "too few",
}
"""Verdicts in one column each."""


def print_tables(report: Report, *, html: str, json: str) -> None:
    """What came out, all tables, notes and paths on stdout."""
    with wide_console() as console:
        _print(console, report, html=html, json=json)


@contextmanager
def wide_console() -> Iterator[Console]:
    """What is printed on it in the block goes to stdout at its end, at least `WIDTH` wide."""
    width = max(WIDTH, shutil.get_terminal_size(fallback=(WIDTH, 24)).columns)
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        yield console
    text = captured.get()
    if not console.is_terminal:  # a table's lines are filled up with blanks
        text = "".join(f"{line.rstrip(' ')}\n" for line in text.splitlines())
    sys.stdout.write(text)


def _print(console: Console, report: Report, *, html: str, json: str) -> None:
    console.print()
    console.print(Text(report.headline, style="bold"))
    console.print()
    tables = (
        *(_results(report, measures) for measures in _groups(report)),
        *(_differences(report, measures) for measures in _groups(report)),
        _retained(report),
        _rounds(report),
        _edits(report),
        _stages(report),
    )
    for table in tables:
        if table is not None:
            console.print(table)
    if kept := report.kept_bytes:
        sizes = (f"round {each} {storage(sum(kinds.values()))}" for each, kinds in kept.items())
        console.print(Text(f"Kept in the store: {', '.join(sizes)}."))
    if any(comparisons(report.rows)):
        console.print(Text("unclear: the two cannot be told apart, the interval holds zero."))
    for note in report.notes:
        console.print(Text("note: ", style="bold").append(harmless(note), style="default"))
    console.print(Text(f"Intervals: {report.interval}.", style="dim"))
    console.print(f"\nReport  {html}\nData    {json}", markup=False, soft_wrap=True)


def number_table(
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


def _results(report: Report, measures: Sequence[Metric]) -> Table | None:
    """The model before, bounds, self-edits by round."""
    passages = plural(report.validation_passages, report.words.context)
    questions = plural(report.validation_questions, "question")
    return number_table(
        f"Validation, {passages}, {questions}{_by(report, measures)} [95 % interval]",
        ["trained on", *_heads(measures)],
        [
            [
                _name(row.label),
                *(
                    two_lines(
                        score(row.metrics[each].mean, each, ""),
                        interval(row.metrics[each], each, ""),
                    )
                    for each in measures
                ),
            ]
            for row in report.rows
        ],
    )


def _differences(report: Report, measures: Sequence[Metric]) -> Table | None:
    """Each comparison with its verdict by every measure."""
    one = report.words.context
    return number_table(
        f"Differences, {one} by {one}{_by(report, measures)} [95 % interval]",
        ["first minus second", *_heads(measures)],
        [
            [_name(each.name), *(_difference(each.over[one], one) for one in measures)]
            for each in comparisons(report.rows)
        ],
    )


def _groups(report: Report) -> list[tuple[Metric, ...]]:
    """The measures that share a table: a fourth one would not fit."""
    further = tuple(
        measure for measure in measures_of(report.spec) if measure not in report.measures
    )
    return [report.measures, further] if further else [report.measures]


def _by(report: Report, measures: Sequence[Metric]) -> str:
    return "" if measures == report.measures else f", by {', '.join(_heads(measures))}"


def _heads(measures: Sequence[Metric]) -> list[str]:
    return [MEASURE_NAMES[measure] for measure in measures]


def _name(name: str) -> str:
    return "\n".join(textwrap.wrap(name, NAME_COLUMNS))


def _difference(over: Difference, measure: Metric) -> str:
    mean = score(over.mean, measure, "", signed=True)
    return two_lines(
        f"{mean} {VERDICT_WORDS[over.verdict]}", interval(over, measure, "", signed=True)
    )


def two_lines(mean: str, span: str) -> str:
    """A mean with its interval below it."""
    return f"{mean}\n{span}" if span else mean


def _retained(report: Report) -> Table | None:
    """What is forgotten."""
    rows = [
        [
            _name(row.label),
            with_interval(row.accuracy, "contains", "contains"),
            with_interval(row.accuracy_change, "contains", "contains", signed=True),
        ]
        for row in report.retained
    ]
    return number_table(
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
            folded({name: n for name, n in rollout.decisions.items() if name != "kept"}),
        ]
        for rollout in report.rollouts
    ]
    label = listed(sorted({rollout.label for rollout in report.rollouts} - {""}))
    named = f" ({label})" if label else ""
    return number_table(
        f"Self-edits of the rollouts{named}, reward: {GRADER_NAMES[grader]}",
        ["round", "edits", "kept", "before", "reward", "better/same/worse", "dropped"],
        rows,
        words=(6,),
    )


def _edits(report: Report) -> Table | None:
    """What the policies wrote, round by round."""
    rows = [
        [
            f"round {shape.round}, {shape.stage}",
            str(shape.edits),
            str(shape.empty),
            str(shape.truncated),
            *([plain(shape.pairs, digits=1), percent(shape.cover)] if report.asks_pairs else []),
        ]
        for shape in report.shapes
    ]
    of_pairs = ["pairs an edit", "covered"] if report.asks_pairs else []
    covered = "; covered: gold answers that some pair's answer holds" if of_pairs else ""
    return number_table(f"Edits{covered}", ["stage", "edits", "empty", "cut off", *of_pairs], rows)


def _stages(report: Report) -> Table | None:
    """Time and work."""
    rows = [
        [
            stage_name(stage),
            str(stage.inner_loops_run),
            str(stage.inner_loops_resumed),
            duration(stage.seconds),
            folded({name: n for name, n in stage.outcomes.items() if name != "ok"}),
        ]
        for stage in report.stages
    ]
    run, resumed = (
        sum(getattr(stage, name) for stage in report.stages)
        for name in ("inner_loops_run", "inner_loops_resumed")
    )
    rows.append(["all", str(run), str(resumed), duration(report.seconds), ""])
    return number_table(
        "Stages",
        ["stage", "inner loops run", "resumed", report.seconds_are, "without score"],
        rows if report.stages else [],
        words=(0, 4),
    )


def folded(values: Mapping[str, int]) -> str:
    """Counts in lines of at most `WORDS_COLUMNS`, a number never apart from its name."""
    items = [counts({name: n}).replace(" ", NBSP) for name, n in values.items() if n]
    lines = textwrap.wrap(", ".join(items), WORDS_COLUMNS, break_on_hyphens=False)
    return "\n".join(lines) or MISSING
