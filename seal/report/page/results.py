"""The results part of the page: scores, differences with their verdicts, forgetting."""

from __future__ import annotations

from collections.abc import Sequence

from seal.domains.base import DomainWords
from seal.outcomes import Outcome
from seal.report.numbers.comparisons import Comparison, comparisons
from seal.report.numbers.formats import MEASURE_NAMES, MISSING, count, plural
from seal.report.numbers.model import (
    PASSAGE_KINDS,
    Metric,
    Report,
    ScoreRow,
    Verdict,
    measures_of,
)
from seal.report.numbers.words import OUTCOME_WORDS, name_of, worded
from seal.report.page import figures
from seal.report.page.cells import valued
from seal.report.page.markup import Child, Html, facts, figure, join, paragraph, table, tag

_PAIRED = (
    "Passages differ far more than ways of training do, so the difference is taken on "
    "each passage, over the questions that both have a grade of, and then averaged. Where the "
    "whole interval lies on one side of zero, this run can tell the two apart; where it holds "
    "zero, they may be equal, and the run is too small to say. With many comparisons one "
    "in twenty comes out by luck."
)


def results(report: Report) -> Html | None:
    """The numbers of every row, their paired differences, and what has no score."""
    if not report.rows:
        return None
    passages = plural(report.validation_passages, report.words.context)
    measured = f"{passages}, {plural(report.validation_questions, 'question')}"
    return join(
        paragraph(
            "Each line is the same model after another training. "
            f"{report.words.read_together} Log p is how likely the model finds the gold answer, "
            f"whatever it says, and moves before the answers do. Each {report.words.context} "
            "counts once: the scores of its answers are averaged first. "
            f"{report.words.context.capitalize()}s without any score are not counted."
        ),
        table(
            f"Validation: {measured}; means with 95 % intervals",
            [
                "trained on",
                f"{report.words.context}s",
                *(MEASURE_NAMES[measure] for measure in report.measures),
                "log p, nats per token",
            ],
            [_result_cells(row, report) for row in report.rows],
            class_="stacked",
        ),
        _bounds(report),
        _differences(report),
        _outcomes(report),
    )


def _result_cells(row: ScoreRow, report: Report) -> list[Child]:
    grader, measures = report.spec.evaluation.grader, report.measures
    return [
        row.label,
        str(row.metrics[measures[0]].n),
        *(valued(row.metrics[each], each, grader) for each in (*measures, "logprob")),
    ]


def _bounds(report: Report) -> Html | None:
    """What the rows are that were measured only to compare with."""
    there = {row.kind for row in report.rows}
    bounds = report.words.bounds
    words = [
        (row.label, join(bounds[row.kind], _given_edit(report, row)))
        for row in report.rows
        if row.kind in bounds
    ]
    return facts(words) if there & bounds.keys() else None


def _given_edit(report: Report, row: ScoreRow) -> Html | None:
    """The edit that the settings give for a row, to be read as it is."""
    given = report.spec.validation
    text = {"fixed-edit": given.fixed_edit, "oracle-edit": given.oracle_edit}.get(row.kind)
    return join(": ", tag("code", text)) if text else None


def _differences(report: Report) -> Html | None:
    """Round against round and against the bounds, by every measure."""
    compared = comparisons(report.rows)
    if not compared:
        return None
    measures = measures_of(report.spec)
    head: list[Child] = ["trained on", "against", f"{report.words.context}s"]
    head += [MEASURE_NAMES[measure] for measure in measures]
    rows = [_difference_cells(each, measures, report.words) for each in compared]
    return join(
        tag("h3", worded("Did it help? Differences, passage by passage", report.words)),
        paragraph(
            worded(_PAIRED, report.words),
            _which_passage(report),
        ),
        figure(
            figures.differences_figure(compared, report.measures),
            "Right of the dashed line the first of the two is better, left of it worse. Square: "
            f"{report.words.reference}; diamond: self-edits of a round; triangle: ceilings.",
        ),
        table(
            "Paired differences with 95 % intervals and verdicts, in percentage points"
            + (", log p in nats" if "logprob" in measures else ""),
            head,
            rows,
            words={0: "", 1: "short"},
            class_="stacked",
        ),
    )


def _which_passage(report: Report) -> str | None:
    """Which of two passage rows the others are compared with; nothing where there is one."""
    best = report.row(report.best_passage)
    if best is None or sum(row.kind in PASSAGE_KINDS for row in report.rows) < 2:
        return None
    return f" The passage alone is here “{best.label}”, which has the higher F1 of the two."


def _difference_cells(
    compared: Comparison, measures: Sequence[Metric], words: DomainWords
) -> list[Child]:
    cells: list[Child] = [compared.left, compared.right, str(compared.over[measures[0]].n)]
    for measure in measures:
        over = compared.over[measure]
        clear = over.verdict in (Verdict.BETTER, Verdict.WORSE)
        said = worded(over.verdict.value, words)
        verdict = tag("b", said) if clear else said
        cells.append(join(valued(over, measure, "", signed=True), tag("span", verdict)))
    return cells


def _outcomes(report: Report) -> Html:
    """What has a score and what has none, for validation and rollouts."""
    asked = [row for row in report.rows if row.outcomes]
    every = [row.outcomes for row in asked] + [rollout.outcomes for rollout in report.rollouts]
    present = [
        outcome
        for outcome in Outcome
        if outcome is Outcome.OK or any(outcomes.get(outcome) for outcomes in every)
    ]
    rows: list[list[Child]] = [
        [
            f"validation: {row.label}",
            *(count(row.outcomes.get(outcome, 0)) for outcome in present),
            count(row.answers),
            count(row.answers_ungraded),
        ]
        for row in asked
    ]
    rows += [
        [
            f"rollout, round {rollout.round}",
            *(count(rollout.outcomes.get(outcome, 0)) for outcome in present),
            MISSING,
            MISSING,
        ]
        for rollout in report.rollouts
    ]
    return join(
        tag("h3", "What has no score"),
        paragraph(
            "An inner loop is one adapter: trained, then asked. One that ends without a score is "
            "counted here and left out of every mean; it never counts as a zero."
        ),
        facts((name_of(outcome), OUTCOME_WORDS[outcome]) for outcome in present),
        table(
            "Inner loops by outcome, and answers",
            ["", *(name_of(outcome) for outcome in present), "answers", "ungraded answers"],
            rows,
        ),
    )


def forgetting(report: Report) -> Html | None:
    """The retained set."""
    if not report.retained:
        return None
    grader = report.spec.evaluation.grader
    rows: list[list[Child]] = [
        [
            row.label,
            str(row.models),
            str(row.answers),
            valued(row.accuracy, "contains", grader),
            valued(row.accuracy_change, "contains", grader, signed=True),
        ]
        for row in report.retained
    ]
    return join(
        paragraph(
            "Questions on passages that nothing was trained on, asked with the passage in view. A "
            "model that loses here has paid for what "
            "it learnt with what it could do before."
        ),
        figure(
            figures.retained_figure(report.retained),
            "Circle: policy without an adapter. Square, diamond, triangle: after training on the "
            "passage alone, on self-edits, on gold questions.",
        ),
        table(
            "Open-book accuracy; the change is against the model beneath the adapter alone, on the "
            "same questions, in percentage points",
            ["model", "models asked", "answers", "accuracy, 95 % interval", "change by adapting"],
            rows,
        ),
    )
