"""From records to one number per passage.

A mean over answers, then repeats, then candidates, in which what is missing is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from seal.outcomes import Outcome
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
)
from seal.report.numbers.model import Metric
from seal.restem.reward import mean

ByPassage = dict[str, float]
"""A score per passage id; passages without one are absent."""
ByQuestion = dict[str, dict[str, float]]
"""A score per passage id and query id; questions without one are absent."""


def answer_score(answer: AnswerRecord, metric: Metric) -> float | None:
    """One grade of an answer; None if the answer was not graded or the grade is no number."""
    if answer.outcome is not Outcome.OK:
        return None
    value = (
        answer.score
        if metric == "score"
        else answer.logprob
        if metric == "logprob"
        else answer.measures.get(metric)
    )
    return value if value is not None and math.isfinite(value) else None


def evaluation_score(evaluation: EvaluationRecord | None, metric: Metric) -> float | None:
    """Mean grade of an evaluation's answers."""
    return (
        mean(answer_score(answer, metric) for answer in evaluation.answers) if evaluation else None
    )


def loops_of(
    record: ContextRecord, kind: InnerLoopKind, candidate: int | None = None
) -> tuple[InnerLoopRecord, ...]:
    """A passage's inner loops of one kind, and of one candidate if it is given."""
    return tuple(
        loop
        for loop in record.inner_loops
        if loop.kind == kind and candidate in (None, loop.candidate)
    )


def candidate_scores(
    record: ContextRecord, kind: InnerLoopKind, metric: Metric
) -> dict[int, float]:
    """Score by candidate, the mean over its repeats; candidates without one are absent."""
    scores = {
        candidate: mean(
            evaluation_score(loop.evaluation, metric) for loop in loops_of(record, kind, candidate)
        )
        for candidate in sorted({loop.candidate for loop in loops_of(record, kind)})
    }
    return {candidate: score for candidate, score in scores.items() if score is not None}


def by_passage(
    records: Sequence[ContextRecord], score: Callable[[ContextRecord], float | None]
) -> ByPassage:
    """A score per passage."""
    scores = {record.context_id: score(record) for record in records}
    return {context_id: value for context_id, value in scores.items() if value is not None}


def baseline_scores(
    records: Sequence[ContextRecord], metrics: Sequence[Metric]
) -> dict[Metric, ByPassage]:
    """The student alone, by metric and passage."""

    def scores(metric: Metric) -> ByPassage:
        return by_passage(records, lambda record: evaluation_score(record.baseline, metric))

    return {metric: scores(metric) for metric in metrics}


def adapted_scores(
    records: Sequence[ContextRecord], kind: InnerLoopKind, metrics: Sequence[Metric]
) -> dict[Metric, ByPassage]:
    """Models adapted by one kind of inner loop, by metric and passage."""

    def scores(metric: Metric) -> ByPassage:
        return by_passage(
            records, lambda record: mean(candidate_scores(record, kind, metric).values())
        )

    return {metric: scores(metric) for metric in metrics}


def question_scores(
    records: Sequence[ContextRecord], kind: InnerLoopKind | None, metrics: Sequence[Metric]
) -> dict[Metric, ByQuestion]:
    """Models adapted by one kind of inner loop, by metric, passage and question.

    Without a kind the student alone. Of several repeats and candidates it is the mean over those
    that have a grade.
    """

    def scores(record: ContextRecord, metric: Metric) -> dict[str, float]:
        if kind is None:
            return _by_question([[record.baseline]], metric)
        candidates = {loop.candidate for loop in loops_of(record, kind)}
        return _by_question(
            [
                [loop.evaluation for loop in loops_of(record, kind, each) if loop.evaluation]
                for each in candidates
            ],
            metric,
        )

    return {
        metric: {record.context_id: scores(record, metric) for record in records}
        for metric in metrics
    }


def _by_question(
    evaluations: Sequence[Sequence[EvaluationRecord]], metric: Metric
) -> dict[str, float]:
    """Score by query id, the mean over candidates of the mean over their repeats."""
    graded = [
        [
            {answer.query_id: answer_score(answer, metric) for answer in evaluation.answers}
            for evaluation in repeats
        ]
        for repeats in evaluations
    ]
    queries = {query for repeats in graded for answers in repeats for query in answers}
    means = {
        query: mean(mean(answers.get(query) for answers in repeats) for repeats in graded)
        for query in queries
    }
    return {query: value for query, value in means.items() if value is not None}
