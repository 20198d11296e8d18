"""What to do next: for each result that a run can have, the step that it suggests.

Settings are named as a manifest names them.
"""

from __future__ import annotations

from collections.abc import Iterator

from seal.outcomes import Outcome
from seal.report.numbers.formats import MEASURE_NAMES, percent, plural, points
from seal.report.numbers.model import UNKNOWN_PHASE, Difference, Report, Verdict
from seal.report.numbers.words import worded
from seal.report.page.markup import Html, join, tag

LOW_GOLD = 0.6
"""Below this F1 on its own training questions a model has not learnt what it was given."""
MANY_LOST = 0.2
"""Share of edits or inner loops without a score from which it is worth asking why."""
MOST = 0.5
"""Share of edits above which cut-off ones are the rule."""


def advice(report: Report) -> tuple[Html, ...]:
    """One step for each thing that stands out; empty if nothing is measured yet."""
    if not report.rows:
        return ()
    return tuple(
        join(tag("b", worded(lead, report.words)), " ", worded(rest, report.words))
        for find in (
            _unfinished,
            _rounds,
            _passages,
            _ceiling,
            _cut_off,
            _lost,
            _choice,
            _forgotten,
        )
        for lead, rest in find(report)
    )


_Steps = Iterator[tuple[str, str]]


def _unfinished(report: Report) -> _Steps:
    if report.phase not in ("Complete", UNKNOWN_PHASE):
        yield (
            "Let it finish.",
            "The run is taken up where it stands when it is started again with --resume; nothing "
            "that is finished runs twice.",
        )


def _rounds(report: Report) -> _Steps:
    """After rounds that made a difference."""
    last = report.last_edit_row
    if last is None or not last.over_first:
        return
    verdicts = {last.over_first[measure].verdict for measure in report.measures}
    if Verdict.WORSE in verdicts and Verdict.BETTER not in verdicts:
        yield (
            f"Do not use the policy of round {last.round}.",
            "That of round 0 writes better self-edits than it does. The next policy learns from "
            "rewards that are partly luck: several trainings per edit (inner.repeats), more edits "
            "to choose from (edit.k) or more training passages make the choice a better one. A "
            "lower improve.optimizer.learningRate changes the policy less.",
        )
    if Verdict.BETTER in verdicts and Verdict.WORSE not in verdicts:
        yield (
            "Repeat the run with another seed before you rely on the gain.",
            "It is what self-edits chosen by chance give: a run with improve.selection: reward "
            "and the same seed shows whether the reward adds to it."
            if last.without_reward
            else "And keep in mind what it does not show: a policy that is finetuned on some of "
            "its own edits, chosen at random, may gain as much, because it learns their form. The "
            "same run with improve.selection: random is that control.",
        )


def _passages(report: Report) -> _Steps:
    """Where more passages would tell what these cannot."""
    last = report.last_edit_row
    if last is None:
        return
    first = report.measures[0]
    open_ones = [
        over[first]
        for over in (last.over_first, last.over_passage)
        if over and over[first].verdict in (Verdict.UNCLEAR, Verdict.UNKNOWN)
    ]
    if open_ones:
        yield f"Measure on more {report.words.context}s.", _how_many(open_ones[0], report)


def _how_many(difference: Difference, report: Report) -> str:
    one = report.words.context
    if difference.low is None or difference.high is None:
        return f"One {one} tells nothing about others; give 60 or more in data.validation."
    half = (difference.high - difference.low) / 2
    name = MEASURE_NAMES[report.measures[0]]
    if not half:
        return (
            f"On each {one} the two scored the same in {name}, or differed by as much, so that "
            "this run cannot say how small a difference it would see."
        )
    return (
        f"With {plural(difference.n, one)} a difference in {name} of less than about "
        f"{points(half).removeprefix('+')} points cannot be seen. Four times as many in "
        "data.validation halve that."
    )


def _ceiling(report: Report) -> _Steps:
    """What the gold questions say about the training itself."""
    gold, passage = report.row("gold"), report.row(report.best_passage)
    if gold is None or (best := gold.metrics["f1"].mean) is None:
        return
    if best < LOW_GOLD:
        yield (
            "Train harder.",
            f"Even trained on the questions themselves the model's answers reach an F1 of only "
            f"{percent(best)}, and no self-edit can do better. Raise "
            "inner.optimizer.learningRate, its epochs, or inner.lora.rank.",
        )
        return
    last = report.last_edit_row
    over = last.over_passage.get("f1") if last else None
    alone = passage.metrics["f1"].mean if passage is not None else None
    if alone is None or alone >= best or over is None:
        return
    if over.verdict is not Verdict.BETTER:
        yield (
            "Ask for other self-edits.",
            f"Between the passage alone (F1 {percent(alone)}) and the gold "
            f"questions ({percent(best)}) there is room. Read the edits below: if they are few, "
            "wrong or beside the point, try another edit.family, more edit.maxTokens, or a larger "
            "model.",
        )


def _cut_off(report: Report) -> _Steps:
    """Edits that seldom come to their end."""
    edits = sum(shape.edits for shape in report.shapes)
    cut = sum(shape.truncated for shape in report.shapes)
    if edits and cut / edits > MOST:
        yield (
            "Let the edits come to their end.",
            f"{cut} of {plural(edits, 'edit')} were cut off at edit.maxTokens "
            f"({report.spec.edit.max_tokens}), and what they would have said is not learnt. Raise "
            "it; writing takes longer then.",
        )


def _lost(report: Report) -> _Steps:
    """Inner loops that ended without a score."""
    every = [row.outcomes for row in report.rows] + [each.outcomes for each in report.rollouts]
    total = sum(n for outcomes in every for n in outcomes.values())
    lost = total - sum(outcomes.get(Outcome.OK, 0) for outcomes in every)
    if total and lost / total >= MANY_LOST:
        yield (
            "Find out why so much has no score.",
            f"{lost} of {plural(total, 'inner loop')} ended without one; the table of outcomes "
            "says how. Means over what is left may flatter.",
        )


def _choice(report: Report) -> _Steps:
    """Rounds from which the policy learnt little or nothing."""
    none = [each for each in report.rollouts if each.selection_sha256 and not each.kept]
    if none:
        yield (
            "Give the choice more to choose from.",
            f"{plural(len(none), 'round')} kept no edit, because none beat what the model scored "
            "before, or all scored the same. More or more varied edits (edit.k, edit.temperature) "
            "and more questions per passage help.",
        )


def _forgotten(report: Report) -> _Steps:
    """Adapted models that lost what the model could do before."""
    losses = [
        (row.accuracy_change.mean, row.label)
        for row in report.retained
        if row.accuracy_change is not None
        and row.accuracy_change.mean is not None
        and row.accuracy_change.high is not None
        and row.accuracy_change.high < 0
    ]
    if losses:
        worst, label = min(losses)
        yield (
            "Mind what is forgotten.",
            f"Open-book answers on other passages change by up to {points(worst)} points "
            f"({label}). If the model is to do more than answer on these passages, train more "
            "gently: a lower inner.optimizer.learningRate or fewer epochs.",
        )
