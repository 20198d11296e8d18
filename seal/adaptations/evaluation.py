"""From the answers of base, passages and adapter to what the adapter is worth.

Scores are means over passages, as a passage's questions are no independent trials; differences are
paired, passage by passage, over the questions that both sides have a grade of. An answer without a
grade is in no mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from seal.outcomes import Outcome
from seal.records import (
    AdaptationEvaluation,
    AnswerRecord,
    EvaluationRecord,
    Interval,
    Measure,
    ModelDifference,
    ModelScore,
    ScoredModel,
)
from seal.restem.reward import mean
from seal.restem.seeds import derive_seed
from seal.restem.statistics import mean_interval, paired_by_context

MEASURES: tuple[Measure, ...] = get_args(Measure)
Answers = Mapping[ScoredModel, EvaluationRecord]
"""What each model answered to the same questions, whose ids are `{passage}/{number}`."""
DIGITS = 4
"""Decimals of what is reported."""
_AGAINST: tuple[ScoredModel, ...] = ("base", "passages")


def evaluate_adapter(
    held_out: Answers, retained: Answers, *, self_made: bool, seed: int
) -> AdaptationEvaluation:
    """What an adapter is worth. A model that gave no answer that could be graded has no score."""
    of_test, of_retained = (derive_seed(seed, "interval", name) for name in ("test", "retained"))
    changes = _differences(retained, of_retained)
    return AdaptationEvaluation(
        questions=_questions(held_out),
        self_made=self_made,
        scores=_scores(held_out, of_test),
        differences=_differences(held_out, of_test),
        retained_questions=_questions(retained),
        retained=tuple(one for one in _scores(retained, of_retained) if one.measure == "f1"),
        retained_change=next(
            (one.value for one in changes if (one.against, one.measure) == ("base", "f1")), None
        ),
    )


def _questions(answers: Answers) -> int:
    return max((len(record.answers) for record in answers.values()), default=0)


def _scores(answers: Answers, seed: int) -> tuple[ModelScore, ...]:
    scores = []
    for model, record in answers.items():
        for measure in MEASURES:
            values = by_passage(record, measure).values()
            interval = mean_interval(values, seed=derive_seed(seed, model, measure))
            if interval is not None:
                value = _short(interval)
                scores.append(ModelScore(model=model, measure=measure, value=value))
    return tuple(scores)


def _differences(answers: Answers, seed: int) -> tuple[ModelDifference, ...]:
    """The adapter against the others."""
    adapter = answers.get("adapter")
    if adapter is None:
        return ()
    found = []
    for against in _AGAINST:
        other = answers.get(against)
        if other is None:
            continue
        for measure in MEASURES:
            differences = paired_by_context(
                _by_question(adapter, measure), _by_question(other, measure)
            )
            interval = mean_interval(
                differences.values(), seed=derive_seed(seed, "adapter", against, measure)
            )
            if interval is not None:
                found.append(
                    ModelDifference(
                        model="adapter", against=against, measure=measure, value=_short(interval)
                    )
                )
    return tuple(found)


def _short(interval: Interval) -> Interval:
    """The interval with so many digits that the result fits a summary (`ShardSummary`)."""
    mean, low, high = (
        None if value is None else round(value, DIGITS)
        for value in (interval.mean, interval.low, interval.high)
    )
    return Interval(interval.mean if mean is None else mean, low, high, interval.n)


def by_passage(record: EvaluationRecord, measure: Measure) -> dict[str, float | None]:
    """A model's mean score on each passage; None where no answer could be graded."""
    grades = _by_question(record, measure)
    return {passage: mean(values.values()) for passage, values in grades.items()}


def _by_question(record: EvaluationRecord, measure: Measure) -> dict[str, dict[str, float | None]]:
    """A model's score on each question, by passage; None where it could not be graded."""
    grades: dict[str, dict[str, float | None]] = {}
    for answer in record.answers:
        passage = answer.query_id.rpartition("/")[0]
        grades.setdefault(passage, {})[answer.query_id] = _grade(answer, measure)
    return grades


def _grade(answer: AnswerRecord, measure: Measure) -> float | None:
    if answer.outcome is not Outcome.OK:
        return None
    return answer.logprob if measure == "logprob" else answer.measures[measure]
