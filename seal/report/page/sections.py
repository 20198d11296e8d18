"""The numbered parts of the page that hold figures and tables."""

from __future__ import annotations

from collections.abc import Mapping

from seal.report.numbers.formats import (
    METRIC_NAMES,
    MISSING,
    count,
    counts,
    interval,
    percent,
    plain,
    plural,
    score,
)
from seal.report.numbers.model import EditShape, Estimate, Metric, Report, ScoreRow, Spread
from seal.report.page import figures
from seal.report.page.markup import Child, Html, figure, join, paragraph, table, tag


def valued(estimate: Estimate | None, metric: Metric, grader: str, *, signed: bool = False) -> Html:
    """An estimate and, softly, its interval."""
    if estimate is None or estimate.mean is None:
        return join(MISSING)
    span = interval(estimate, metric, grader, signed=signed)
    return join(
        score(estimate.mean, metric, grader, signed=signed),
        tag("span", f" {span}", class_="range") if span else None,
    )


def results(report: Report) -> Html | None:
    """Accuracy of every row, and the paired differences."""
    if not report.rows:
        return None
    grader = report.spec.evaluation.grader
    passages = plural(report.validation_passages, "passage")
    measured = f"{passages}, {plural(report.validation_questions, 'question')}"
    return join(
        paragraph(
            "Each passage counts once: the scores of its answers are averaged first. Passages "
            "without any score are not counted."
        ),
        figure(
            figures.result_figure(report.rows, metric="contains"),
            "Left: share of right answers. Right: the same minus passage only, passage by "
            "passage. Bars are 95 % intervals. "
            "Circle: base model; square: passage only; diamond: self-edits; triangle: gold "
            "questions.",
        ),
        table(
            f"Validation: {measured}",
            [
                "trained on",
                "passages",
                "accuracy, 95 % interval",
                "exact",
                "token F1",
                "log p, nats per token",
            ],
            [_result_cells(row, grader) for row in report.rows],
        ),
        _differences(report),
        _outcomes(report),
    )


def _result_cells(row: ScoreRow, grader: str) -> list[Child]:
    return [
        row.label,
        str(row.metrics["contains"].n),
        valued(row.metrics["contains"], "contains", grader),
        percent(row.metrics["exact"].mean),
        valued(row.metrics["f1"], "f1", grader),
        valued(row.metrics["logprob"], "logprob", grader),
    ]


def _differences(report: Report) -> Html:
    """Every row against passage only and against base, in accuracy and in the run's own reward."""
    grader = report.spec.evaluation.grader
    metrics: list[Metric] = ["contains"] if grader == "contains" else ["contains", "score"]
    names = {"contains": "accuracy", "score": METRIC_NAMES[grader]}
    head: list[Child] = [
        "trained on",
        *(
            f"{names[metric]}: over {other}"
            for metric in metrics
            for other in ("passage only", "base model")
        ),
    ]
    rows: list[list[Child]] = [
        [
            row.label,
            *(
                valued(over.get(metric), metric, grader, signed=True)
                for metric in metrics
                for over in (row.over_passage, row.over_base)
            ),
        ]
        for row in report.rows
    ]
    return join(
        tag("h3", "Differences, passage by passage"),
        paragraph(
            "Passages differ far more than ways of training do, so the difference is taken on "
            "each passage and then averaged over those "
            "that have both scores. An interval that does not hold zero is a difference that this "
            "run can tell."
        ),
        table("Paired differences with 95 % intervals; accuracy in percentage points", head, rows),
    )


def _outcomes(report: Report) -> Html:
    """What has a score and what has none, for validation and rollouts."""
    rows: list[list[Child]] = [
        [
            f"validation: {row.label}",
            *_outcome_cells(row.outcomes),
            count(row.answers),
            count(row.answers_ungraded),
        ]
        for row in report.rows
        if row.outcomes
    ]
    rows += [
        [f"rollout, round {rollout.round}", *_outcome_cells(rollout.outcomes), MISSING, MISSING]
        for rollout in report.rollouts
    ]
    return join(
        tag("h3", "Outcomes of the inner loops"),
        paragraph(
            "An edit that parses to no training example is invalid, a training that met NaN has "
            "diverged, an answer without a grade is "
            "ungraded. None of them is averaged in as a zero."
        ),
        table(
            "Inner loops by outcome, and answers",
            [
                "",
                "ok",
                "invalid",
                "diverged",
                "ungraded",
                "cancelled",
                "answers",
                "ungraded answers",
            ],
            rows,
        ),
    )


def _outcome_cells(outcomes: Mapping[str, int]) -> list[Child]:
    return [
        count(outcomes.get(name, 0))
        for name in ("ok", "invalid", "diverged", "ungraded", "cancelled")
    ]


def rewards(report: Report) -> Html | None:
    """Rewards and gains of the candidates, and what was kept."""
    if not report.rollouts:
        return None
    grader = report.spec.evaluation.grader
    head: list[Child] = [
        "round",
        "written by",
        "passages",
        "candidates",
        "before",
        "mean reward",
        "gain",
        "better / equal / worse",
        "kept",
        "dropped",
    ]
    rows: list[list[Child]] = [
        [
            str(rollout.round),
            "base model"
            if rollout.policy_round == 0
            else f"policy of round {rollout.policy_round}",
            str(rollout.passages),
            str(rollout.candidates),
            score(rollout.baseline.mean, "score", grader),
            score(rollout.reward.mean, "score", grader),
            valued(rollout.gain, "score", grader, signed=True),
            f"{rollout.better} / {rollout.equal} / {rollout.worse}",
            str(rollout.kept) if rollout.selection_sha256 else MISSING,
            counts({name: n for name, n in rollout.decisions.items() if name != "kept"}),
        ]
        for rollout in report.rollouts
    ]
    return join(
        paragraph(
            "In a rollout the policy writes several edits (candidates) for each training passage; "
            "the reward of a candidate is what the "
            "model scores after training on it. The next policy learns the best candidate of a "
            "passage, if it beats what the model scored "
            "before and if the candidates of the passage differ at all."
        ),
        figure(
            figures.rewards_figure(report.rollouts, grader=METRIC_NAMES[grader]),
            "Solid: kept for the next policy. Hatched: dropped. Dashed line: mean score before "
            "training (top), no gain (bottom).",
        ),
        table("Candidates by round", head, rows, words={0: "", 1: "short", 9: "w"}),
        _reliability(report),
    )


def _reliability(report: Report) -> Html | None:
    """How far a reward can be trusted."""
    repeats = report.spec.inner.repeats
    if repeats == 1:
        return paragraph(
            "Every candidate was trained once, so that this run cannot tell how much of a reward "
            "is luck; ",
            tag("code", "inner.repeats"),
            " above 1 would.",
        )
    if report.spec.inner.racing:
        sizes = " → ".join(str(size) for size in (report.spec.edit.k, *report.spec.inner.racing))
        return paragraph(
            f"The candidates of a passage ran a race ({sizes}): "
            "who was trained again was chosen by luck as well, so that the repeats do not tell "
            "how far a reward can be trusted. ",
            "Mean reward and gain are over the first training of every candidate.",
        )
    rows: list[list[Child]] = [
        [
            str(rollout.round),
            str(found.candidates),
            plain(found.single, digits=2),
            plain(found.averaged, digits=2),
        ]
        for rollout in report.rollouts
        if (found := rollout.reliability)
    ]
    return join(
        tag("h3", "Reliability of the reward"),
        paragraph(
            f"Every candidate was trained {repeats} times with other seeds. A reliability of 1 "
            "means that the rewards of a passage's "
            "candidates differ because the edits differ, 0 that they differ by luck."
        ),
        table(
            "Reliability by round",
            ["round", "candidates", "of one training", f"of the mean of {repeats}"],
            rows,
        )
        if rows
        else None,
        None
        if rows
        else paragraph(
            "It is not defined here: no passage has two graded candidates whose rewards vary."
        ),
    )


def edits(report: Report) -> Html | None:
    """Length and diversity."""
    if not report.shapes:
        return None
    head: list[Child] = [
        "stage",
        "written by",
        "edits",
        "tokens, median (quartiles)",
        "examples, median",
        "empty",
        "cut off",
        "different texts",
        "different word pairs",
        "distance within a passage",
    ]
    return join(
        paragraph(
            "A policy that collapses writes ever more of the same: fewer different texts and word "
            "pairs, a smaller distance between the "
            "edits of one passage. Validation stages write on the same passages every round and "
            "so compare best."
        ),
        figure(
            figures.shapes_figure(report.shapes),
            "Left: box from quartile to quartile, line at the median, whiskers to the extremes, "
            "diamond at the mean. "
            "Right: shares by stage.",
        ),
        table(
            "Edits by stage",
            head,
            [_shape_cells(shape) for shape in report.shapes],
            words={0: "", 1: "short"},
        ),
    )


def _shape_cells(shape: EditShape) -> list[Child]:
    return [
        f"round {shape.round}, {shape.stage}",
        "base model" if shape.policy_round == 0 else f"policy of round {shape.policy_round}",
        str(shape.edits),
        _quartiles(shape.tokens),
        f"{shape.examples.median:g}" if shape.examples else MISSING,
        str(shape.empty),
        str(shape.truncated),
        percent(shape.unique_share),
        percent(shape.distinct_pairs_share),
        percent(shape.diversity),
    ]


def _quartiles(spread: Spread | None) -> str:
    return (
        f"{spread.median:.0f} ({spread.lower_quartile:.0f}–{spread.upper_quartile:.0f})"
        if spread
        else MISSING
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
            "Circle: policy without an adapter. Square, diamond, triangle: adapted by passage "
            "only, self-edits, gold questions.",
        ),
        table(
            "Open-book accuracy; the change is against the same policy alone, on the same "
            "questions, in percentage points",
            ["model", "models asked", "answers", "accuracy, 95 % interval", "change by adapting"],
            rows,
        ),
    )
