"""What came out, in whole sentences: the same in report.json, on the page and in the terminal.

Every comparison is told by the domain's measures together, and by the run's reward where it is
none of these: which of them tell the two apart, and which do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from seal.records import WARM_START
from seal.report.numbers.comparisons import compared_passage
from seal.report.numbers.formats import (
    MEASURE_NAMES,
    listed,
    plural,
    with_interval,
)
from seal.report.numbers.model import (
    Difference,
    Metric,
    RolloutReport,
    ScoreRow,
    Verdict,
    last_edits,
)

_ORDER = (Verdict.BETTER, Verdict.WORSE, Verdict.UNCLEAR, Verdict.UNKNOWN)
_Sentences = Mapping[Verdict, str]
_ROUNDS: _Sentences = {
    Verdict.BETTER: "The rounds made the self-edits better in {measures}",
    Verdict.WORSE: "The rounds made the self-edits worse in {measures}",
    Verdict.UNCLEAR: "This run cannot tell whether the rounds made the self-edits better or worse "
    "in {measures}",
    Verdict.UNKNOWN: "The passages are too few to tell whether the rounds made the self-edits "
    "better or worse",
}
_AGAINST: _Sentences = {
    Verdict.BETTER: "{left} {are} better than {right} in {measures}",
    Verdict.WORSE: "{left} {are} worse than {right} in {measures}",
    Verdict.UNCLEAR: "{left} cannot be told apart from {right} in {measures}",
    Verdict.UNKNOWN: "The passages are too few to compare {left_later} with {right}",
}
_FURTHER: _Sentences = {
    Verdict.BETTER: "better in {measures}",
    Verdict.WORSE: "worse in {measures}",
    Verdict.UNCLEAR: "in {measures} no difference can be told",
    Verdict.UNKNOWN: "for {measures} the passages are too few",
}
"""How a sentence goes on where the measures differ."""


def headline(
    rows: Sequence[ScoreRow], rollouts: Sequence[RolloutReport], measures: Sequence[Metric]
) -> str:
    """The result in a few sentences, what is told apart and what is not, or why there is none."""
    if all(row.key != "base" for row in rows):
        return "No validation is finished yet, so there is no result to tell."
    if all(row.metrics[measures[0]].mean is None for row in rows):
        return "No answer was graded, so there is no result to tell."
    sentences = list(_verdicts(rows, rollouts, measures))
    if sentences and any(row.remark == WARM_START for row in rows):
        sentences.append("Round 0 is a warm start, supervised: it has learnt gold questions.")
    return " ".join(sentences) or "There is nothing to compare the base model with."


def _verdicts(
    rows: Sequence[ScoreRow], rollouts: Sequence[RolloutReport], measures: Sequence[Metric]
) -> Iterator[str]:
    """Whether the edits beat the passage, before the rounds and after, and whether these helped."""
    passage, last = compared_passage(rows), last_edits(rows)
    if last is None:
        if passage is not None and passage.over_base:
            yield _against(_plain(passage), _before(rows, passage), passage.over_base, measures)
        return
    if last.over_first:
        yield _rounds_sentence(last, rollouts, measures)
    base = next((row for row in rows if row.key == "base"), None)
    first = next((row for row in rows if row.key == "edit-0"), last)
    for row in (last,) if first is last else (last, first):
        left = f"self-edits of round {row.round}" if row.remark else _edits(row)
        if base is not None and row.over_base and _stands_apart(passage):
            yield _against(left, base.label, row.over_base, measures)
        if passage is not None and row.over_passage:
            yield _against(left, _plain(passage), row.over_passage, measures)


def findings(rows: Sequence[ScoreRow], measures: Sequence[Metric]) -> tuple[str, ...]:
    """Each comparison that the run is about with its intervals and verdicts."""
    if all(row.metrics[measures[0]].mean is None for row in rows):
        return ()
    return tuple(_comparisons(rows, measures))


def _comparisons(rows: Sequence[ScoreRow], measures: Sequence[Metric]) -> Iterator[str]:
    passage, last = compared_passage(rows), last_edits(rows)
    if passage is not None and passage.over_base:
        yield _sentence(_plain(passage), _before(rows, passage), passage.over_base, measures)
    if last is None:
        return
    for row in rows:
        if row is not last and row.key != "edit-0":
            continue
        if passage and row.over_passage:
            yield _sentence(_edits(row), _plain(passage), row.over_passage, measures)
        if _stands_apart(passage) and row.over_base:
            yield _sentence(_edits(row), rows[0].label, row.over_base, measures)
    if last.over_first:
        first = next((row for row in rows if row.key == "edit-0"), last)
        yield _sentence(_edits(last), f"those {_writer(first)}", last.over_first, measures)
    later = [row for row in rows if row.kind == "edit" and row.round > 1 and row.over_previous]
    for row in later:
        worse = any(row.over_previous[each].verdict is Verdict.WORSE for each in measures)
        if row is last or worse:
            left = _edits(row)
            yield _sentence(left, "those of the round before", row.over_previous, measures)


def _stands_apart(reference: ScoreRow | None) -> bool:
    """Whether a reference does not lie between the edits and the model before any training."""
    return reference is None or reference.kind == "fixed-edit"


def _before(rows: Sequence[ScoreRow], reference: ScoreRow) -> str:
    """The model before any training, as something to be compared with a reference."""
    return rows[0].label if _stands_apart(reference) else "no training at all"


def _rounds_sentence(
    last: ScoreRow, rollouts: Sequence[RolloutReport], measures: Sequence[Metric]
) -> str:
    before = [rollout for rollout in rollouts if rollout.round <= last.round]
    if before and all(rollout.trained is False for rollout in before):
        return (
            "No round trained a new policy: the policy of round 0 wrote the self-edits of every "
            "round."
        )
    said = _told(_ROUNDS, last.over_first, measures)
    if not last.remark:
        return said
    are = "are a" if last.without_reward else "learnt"
    return f"{said} These rounds {are} {last.remark}."


def _edits(row: ScoreRow) -> str:
    return f"self-edits {_writer(row)}"


def _writer(row: ScoreRow) -> str:
    """Who wrote the edits of a row, with what must be said of it."""
    if row.remark:
        return f"of round {row.round} ({row.remark})"
    return f"of round {row.round}" if row.round else "of the base model"


def _plain(passage: ScoreRow) -> str:
    """The passage row that all are compared with."""
    if passage.kind == "fixed-edit":
        return f"training with {passage.short}"
    steps = " with as many steps as the edits" if passage.kind == "passage-equal-steps" else ""
    return f"the passage alone{steps}"


def _against(
    left: str, right: str, over: Mapping[Metric, Difference], measures: Sequence[Metric]
) -> str:
    """Verdicts as a sentence."""
    return _told(
        {
            verdict: text.format(
                left=_capital(left),
                left_later=left,
                right=right,
                are="are" if left.startswith("self-edits") else "is",
                measures="{measures}",
            )
            for verdict, text in _AGAINST.items()
        },
        over,
        measures,
    )


def _told(
    sentences: _Sentences, over: Mapping[Metric, Difference], measures: Sequence[Metric]
) -> str:
    """A sentence for the measures of the first verdict, which goes on with those of others."""
    groups = {
        verdict: listed([MEASURE_NAMES[each] for each in measures if over[each].verdict is verdict])
        for verdict in _ORDER
    }
    if len({over[each].verdict for each in measures}) == 1:
        groups = {
            verdict: named and ("any measure" if verdict is Verdict.UNCLEAR else "every measure")
            for verdict, named in groups.items()
        }
    first, *further = [verdict for verdict in _ORDER if groups[verdict]]
    parts = [sentences[first], *(_FURTHER[verdict] for verdict in further)]
    told = zip((first, *further), parts, strict=True)
    return "; ".join(part.format(measures=groups[verdict]) for verdict, part in told) + "."


def _sentence(
    left: str, right: str, over: Mapping[Metric, Difference], measures: Sequence[Metric]
) -> str:
    """A difference by every measure, and what the intervals allow to say."""
    names = f"{_capital(left)} against {right}"
    passages = max(over[each].n for each in measures)
    if not passages:
        return f"{names}: no passage has both scores."
    amounts = "; ".join(
        f"{MEASURE_NAMES[each]} {with_interval(over[each], each, '', signed=True)}, "
        f"{over[each].verdict}"
        for each in measures
    )
    return f"{names}, on {plural(passages, 'passage')}: {amounts}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
