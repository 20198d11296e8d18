"""What came out, in whole sentences: the same in report.json, on the page and in the terminal.

Sentences go by accuracy. Where the reward of the run is another grade, its verdicts come with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from seal.report.numbers.formats import (
    METRIC_NAMES,
    listed,
    percent,
    plural,
    points,
    score,
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
from seal.settings import GraderName

_PASSAGE = "training on the passage alone"
_ROUNDS: Mapping[Verdict, str] = {
    Verdict.BETTER: "The rounds made the self-edits better.",
    Verdict.WORSE: "The rounds made the self-edits worse.",
    Verdict.UNCLEAR: "This run cannot tell whether the rounds made the self-edits better or worse.",
    Verdict.UNKNOWN: "The passages are too few to tell whether the rounds made the self-edits "
    "better or worse.",
}
_AGAINST: Mapping[Verdict, str] = {
    Verdict.BETTER: "{left} is better than {right}.",
    Verdict.WORSE: "{left} is worse than {right}.",
    Verdict.UNCLEAR: "{left} cannot be told apart from {right}.",
    Verdict.UNKNOWN: "The passages are too few to compare {left_later} with {right}.",
}
_REASONS: Mapping[Verdict, str] = {
    Verdict.BETTER: "That is better: the whole interval lies above zero.",
    Verdict.WORSE: "That is worse: the whole interval lies below zero.",
    Verdict.UNCLEAR: "The two cannot be told apart: the interval holds zero.",
    Verdict.UNKNOWN: "These are too few passages for a verdict.",
}


def headline(
    rows: Sequence[ScoreRow], rollouts: Sequence[RolloutReport], grader: GraderName
) -> str:
    """The result in a few sentences, by accuracy and by the run's reward, or why there is none."""
    if all(row.key != "base" for row in rows):
        return "No validation is finished yet, so there is no result to tell."
    if all(row.metrics["contains"].mean is None for row in rows):
        return "No answer was graded, so there is no result to tell."
    if not (sentences := _verdicts(rows, rollouts, "contains")):
        return "There is nothing to compare the base model with."
    if grader == "contains":
        return sentences
    by_reward = _verdicts(rows, rollouts, "score")
    name = f"By {METRIC_NAMES[grader]}, the reward of this run"
    if by_reward == sentences:
        return f"{sentences} {name}, the same holds."
    return f"{sentences} {name}: {by_reward[:1].lower()}{by_reward[1:]}"


def _verdicts(rows: Sequence[ScoreRow], rollouts: Sequence[RolloutReport], metric: Metric) -> str:
    """Whether the rounds helped and what training helps, as one grade of the answers tells it."""
    passage = next((row for row in rows if row.kind == "passage"), None)
    last = last_edits(rows)
    sentences = []
    if last is not None and (change := last.over_first.get(metric)):
        sentences.append(_rounds_sentence(last, change, rollouts))
    if last is not None and (over := last.over_passage.get(metric)):
        sentences.append(_against(_training_on(last), _PASSAGE, over))
    elif passage is not None and (over := passage.over_base.get(metric)):
        sentences.append(_against("training on the passage", "not training at all", over))
    return " ".join(sentences)


def findings(rows: Sequence[ScoreRow], grader: GraderName) -> tuple[str, ...]:
    """The scores, then each comparison that the run is about with its interval and verdict."""
    scored = [row for row in rows if row.metrics["contains"].mean is not None]
    if not scored:
        return ()
    shown = [row for row in scored if row.kind != "edit" or row is last_edits(rows)]
    right = listed([f"{percent(row.metrics['contains'].mean)} {_after(row)}" for row in shown])
    scores = [f"Right answers: {right}."]
    if grader != "contains":
        rewards = listed(
            [f"{score(row.metrics['score'].mean, 'score', grader)} {_after(row)}" for row in shown]
        )
        scores.append(f"{_capital(METRIC_NAMES[grader])}, the reward of this run: {rewards}.")
    return (*scores, *_comparisons(rows, grader))


def _comparisons(rows: Sequence[ScoreRow], grader: GraderName) -> Iterator[str]:
    last = last_edits(rows)
    for row in rows:
        if row.kind == "passage" and row.over_base:
            yield _sentence(_PASSAGE, "not training at all", row.over_base, grader)
    if last is None:
        return
    for row in rows:
        if row.over_passage and (row is last or row.key == "edit-0"):
            yield _sentence(_training_on(row), _PASSAGE, row.over_passage, grader)
    if last.over_first:
        first = "those of round 0, which the base model wrote"
        yield _sentence(f"self-edits of round {last.round}", first, last.over_first, grader)
    later = [row for row in rows if row.kind == "edit" and row.round > 1 and row.over_previous]
    for row in later:
        if row is last or row.over_previous["contains"].verdict is Verdict.WORSE:
            left = f"self-edits of round {row.round}"
            yield _sentence(left, "those of the round before", row.over_previous, grader)


def _rounds_sentence(last: ScoreRow, change: Difference, rollouts: Sequence[RolloutReport]) -> str:
    before = [rollout for rollout in rollouts if rollout.round <= last.round]
    if before and all(rollout.trained is False for rollout in before):
        return "No round trained a new policy: the base model wrote the self-edits of every round."
    return _ROUNDS[change.verdict]


def _training_on(row: ScoreRow) -> str:
    writer = f"of round {row.round}" if row.round else "of the base model"
    return f"training on self-edits {writer}"


def _after(row: ScoreRow) -> str:
    """What comes after a score in a list of scores."""
    return {
        "base": "by the base model",
        "passage": "after training on the passage alone",
        "edit": f"after {_training_on(row)}",
        "gold": "after training on the gold questions and answers, the upper bound",
    }[row.kind]


def _against(left: str, right: str, over: Difference) -> str:
    """A verdict as a sentence."""
    return _AGAINST[over.verdict].format(left=_capital(left), left_later=left, right=right)


def _sentence(left: str, right: str, over: Mapping[Metric, Difference], grader: GraderName) -> str:
    """A difference and what its interval allows to say."""
    accuracy, reward = over["contains"], over["score"]
    names = f"{_capital(left)} against {right}"
    if accuracy.mean is None:
        return f"{names}: no passage has both scores."
    amount = f"{points(accuracy.mean)} percentage points on {plural(accuracy.n, 'passage')}"
    interval = (
        f", 95 % interval {points(accuracy.low)} to {points(accuracy.high)}"
        if accuracy.low is not None
        else ""
    )
    sentence = f"{names}: {amount}{interval}. {_REASONS[accuracy.verdict]}"
    if grader == "contains" or reward.verdict is accuracy.verdict:
        return sentence
    by_reward = with_interval(reward, "score", grader, signed=True)
    name = METRIC_NAMES[grader]
    return f"{sentence} By {name}, the reward of this run: {by_reward}, {reward.verdict}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
