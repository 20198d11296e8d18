"""The rollouts part of the page: rewards of the candidates, and how the edits look."""

from __future__ import annotations

from seal.records import WARM_START
from seal.report.numbers.formats import (
    GRADER_NAMES,
    MISSING,
    counts,
    kept,
    percent,
    plain,
)
from seal.report.numbers.model import EditShape, Report, Spread
from seal.report.numbers.shapes import in_order
from seal.report.numbers.words import PART_WORDS, name_of, worded
from seal.report.page import figures
from seal.report.page.cells import valued
from seal.report.page.markup import Child, Html, facts, figure, join, paragraph, table, tag


def rewards(report: Report) -> Html | None:
    """Rewards and gains of the candidates, and what was kept."""
    if not report.rollouts:
        return None
    grader = report.spec.evaluation.grader
    head: list[Child] = [
        "round",
        "written by",
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
            f"{rollout.round} ({rollout.label})" if rollout.label else str(rollout.round),
            report.writer(rollout.policy_round),
            str(rollout.candidates),
            valued(rollout.baseline, "score", grader),
            valued(rollout.reward, "score", grader),
            valued(rollout.gain, "score", grader, signed=True),
            f"{rollout.better} / {rollout.equal} / {rollout.worse}",
            kept(rollout),
            counts({name: n for name, n in rollout.decisions.items() if name != "kept"}),
        ]
        for rollout in report.rollouts
    ]
    how = _BY_PART if report.spec.improve.credit == "part" else _BY_EDIT
    return join(
        paragraph(
            worded(
                f"{_CANDIDATES} {how} {_LUCKIEST}",
                report.words,
            )
        ),
        figure(
            figures.rewards_figure(report.rollouts, grader=GRADER_NAMES[grader]),
            "Solid: kept for the next policy. Hatched: dropped. Dashed line: mean score before "
            "training (top), no gain (bottom).",
        ),
        table(
            "Candidates by round",
            head,
            rows,
            words={0: "", 1: "short", 8: "w"},
            class_="stacked",
        ),
        _parts(report),
        _reliability(report),
    )


_CANDIDATES = (
    "In a rollout the policy writes several edits (candidates) for each training passage; the "
    "reward of a candidate is what the model scores after training on it, the gain is the reward "
    "minus what the model scored before."
)
_LUCKIEST = (
    "Rewards of kept edits are the luckiest of several: what a policy is worth, only the "
    "validation says."
)
_BY_EDIT = (
    "The next policy learns the best candidate of a passage, if it gains and if the candidates of "
    "the passage differ at all; in a control without reward, one by chance in its place."
)
_BY_PART = (
    "The next policy learns single parts of the candidates: those whose answers the trained models "
    "gave where they scored more than before or, in a control without reward, as many by chance."
)


def _parts(report: Report) -> Html | None:
    """What became of the parts, where parts are chosen."""
    if report.spec.improve.credit != "part":
        return None
    rows: list[list[Child]] = [
        [
            str(rollout.round),
            str(rollout.kept_parts),
            str(rollout.abstaining),
            counts(rollout.dropped_parts),
        ]
        for rollout in report.rollouts
        if rollout.selection_sha256
    ]
    if report.gold_rows:
        rows.insert(0, [f"0 ({WARM_START})", f"{report.gold_rows} gold", MISSING, MISSING])
    there = {reason for rollout in report.rollouts for reason in rollout.dropped_parts}
    return join(
        table(
            "Parts by round",
            ["round", "learnt", "abstaining rows", "dropped"],
            rows,
            words={0: "", 3: "w"},
        ),
        facts((name_of(reason), words) for reason, words in PART_WORDS.items() if reason in there),
        _examples_of_credit(report),
    )


def _examples_of_credit(report: Report) -> Html | None:
    """Parts of the highest and the lowest credit, with what they were asked on."""
    rows: list[list[Child]] = [
        [
            str(rollout.round),
            plain(part.credit, digits=2, signed=True),
            tag("bdi", part.text),
            tag("bdi", part.asked_on or part.title),
            "yes" if part.learnt else "no",
        ]
        for rollout in report.rollouts
        for part in (*rollout.best_parts, *reversed(rollout.worst_parts))
    ]
    if not rows:
        return None
    return table(
        "The parts of the highest and of the lowest credit; credit: about so many questions of the "
        "passage are answered right because of it",
        ["round", "credit", "part", "asked on", "learnt"],
        rows,
        words={0: "", 2: "w", 3: "w", 4: ""},
    )


def _reliability(report: Report) -> Html | None:
    """How far a reward can be trusted."""
    repeats = report.spec.inner.repeats
    if repeats == 1:
        return paragraph(
            "No candidate was trained more than once, so that this run cannot tell how much of a "
            "reward is luck; ",
            tag("code", "inner.repeats"),
            " above 1 would.",
        )
    if report.spec.inner.racing:
        sizes = " → ".join(
            str(size) for size in (report.spec.trained_candidates, *report.spec.inner.racing)
        )
        return paragraph(
            f"The candidates of a {report.words.context} ran a race ({sizes}): "
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
            f"Every candidate that was trained had {repeats} trainings with other seeds. A "
            f"reliability of 1 means that the rewards of a {report.words.context}'s candidates "
            "differ because the edits differ, 0 that they differ by luck."
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
            f"It is not defined here: no {report.words.context} has two graded candidates whose "
            "rewards vary."
        ),
    )


_COLLAPSE = (
    "A policy that collapses writes ever more of the same: fewer different texts and word "
    "pairs, a smaller distance between the "
    "edits of one passage. Validation stages write on the same passages every round and "
    "so compare best."
)
_COVERED = (
    " Covered are the gold answers that the answer of some pair of an edit holds: a diagnostic, "
    "which no edit is chosen by."
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
        *(["question-answer pairs, mean", "gold answers covered"] if report.asks_pairs else []),
        "empty",
        "cut off",
        "different texts",
        "different word pairs of all edits",
        worded("distance within a passage", report.words),
    ]
    return join(
        paragraph(worded(_COLLAPSE, report.words) + (_COVERED if report.asks_pairs else "")),
        figure(
            figures.shapes_figure(report.shapes, context=report.words.context),
            "Left: box from quartile to quartile, line at the median, whiskers to the extremes, "
            "diamond at the mean. "
            "Right: shares by stage.",
        ),
        table(
            "Edits by stage",
            head,
            [_shape_cells(report, shape) for shape in report.shapes],
            words={0: "", 1: "short"},
        ),
        _choices(report),
    )


def _choices(report: Report) -> Html | None:
    """What edits chose among few possibilities, before the rounds and after them."""
    measured = [shape for shape in report.shapes if shape.stage == "validate" and shape.choices]
    if not measured:
        return None
    before, after = measured[0], measured[-1]
    rows: list[list[Child]] = [
        [name, value, *(str(shape.choices.get(name, {}).get(value, 0)) for shape in measured)]
        for name in dict.fromkeys(name for shape in measured for name in shape.choices)
        for value in sorted(
            {value for shape in measured for value in shape.choices.get(name, {})}, key=in_order
        )
    ]
    return join(
        tag("h3", "What the policy chose"),
        figure(
            figures.choices_figure(before, after),
            f"Share of the edits of a validation that chose each value: round {before.round} "
            f"(hatched, above) and round {after.round} (below). Edits that hold nothing are not "
            "counted.",
        ),
        table(
            "Edits by what they chose",
            ["choice", "value", *(f"round {shape.round}" for shape in measured)],
            rows,
            words={0: "", 1: ""},
        ),
    )


def _shape_cells(report: Report, shape: EditShape) -> list[Child]:
    return [
        f"round {shape.round}, {shape.stage}",
        report.writer(shape.policy_round),
        str(shape.edits),
        _quartiles(shape.tokens),
        f"{shape.examples.median:g}" if shape.examples else MISSING,
        *([plain(shape.pairs, digits=1), percent(shape.cover)] if report.asks_pairs else []),
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
