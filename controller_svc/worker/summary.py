"""The few numbers that a finished shard reports.

Sums that add up over shards, with a missing score missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from seal.domains.words import distinct_share
from seal.outcomes import Outcome
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    ScoreSum,
    edit_text,
)
from seal.restem.reward import gain, mean, present
from seal.restem.rollout import candidates_of, shared_repeats
from seal.runs.shards import Alone


def bound_reward(record: ContextRecord, kind: InnerLoopKind) -> float | None:
    """Reward of a context's bound: the mean over its graded repeats; None if there is none."""
    return mean(
        loop.evaluation.reward
        for loop in record.inner_loops
        if loop.kind == kind and loop.evaluation
    )


def shard_scores(
    records: Sequence[ContextRecord], retained: Mapping[Alone, EvaluationRecord]
) -> dict[str, ScoreSum]:
    """`ShardSummary.scores` of a rollout or validation."""
    edits = [
        present(candidate.reward for candidate in candidates_of(shared_repeats(record)))
        for record in records
    ]
    finalists = [
        present(candidate.reward for candidate in candidates_of(record) if not candidate.eliminated)
        for record in records
    ]
    scores = {
        "baseline": _sum(record.baseline.reward for record in records),
        "edit": _sum(mean(rewards) for rewards in edits),
        "best": _sum(max(rewards, default=None) for rewards in finalists),
        "passage": _sum(bound_reward(record, "passage") for record in records),
        "passage-equal-steps": _sum(
            bound_reward(record, "passage-equal-steps") for record in records
        ),
        "gold": _sum(bound_reward(record, "gold") for record in records),
        "open-book": _sum(bound_reward(record, "open-book") for record in records),
        "fixed-edit": _sum(bound_reward(record, "fixed-edit") for record in records),
        "oracle-edit": _sum(bound_reward(record, "oracle-edit") for record in records),
        "retained": _sum(
            answer.score for record in records for answer in _retained_answers(record)
        ),
        **{
            f"retained_{alone}": _sum(answer.score for answer in evaluation.answers)
            for alone, evaluation in retained.items()
        },
    }
    return {name: score for name, score in scores.items() if score.n}


def _retained_answers(record: ContextRecord) -> Iterable[AnswerRecord]:
    """Answers of the edit-adapted models to questions of the retained set."""
    return (
        answer
        for loop in record.inner_loops
        if loop.kind == "edit" and loop.retained
        for answer in loop.retained.answers
    )


def _sum(values: Iterable[float | None]) -> ScoreSum:
    there = present(values)
    return ScoreSum(n=len(there), total=sum(there), squares=sum(value * value for value in there))


def shard_measures(records: Sequence[ContextRecord]) -> dict[str, ScoreSum]:
    """`ShardSummary.measures` of a rollout or validation."""
    texts_by_context = [
        [edit_text(record.parts, edit) for edit in record.edits if edit.parts] for record in records
    ]
    answers = [answer for record in records for answer in _graded_answers(record)]
    measures = {
        "gain": _sum(
            gain(
                mean(candidate.reward for candidate in candidates_of(shared_repeats(record))),
                record.baseline.reward,
            )
            for record in records
        ),
        "edit_tokens": _sum(
            float(edit.tokens) for record in records for edit in record.edits if edit.parts
        ),
        "distinct_1": _sum(distinct_share(texts, 1) for texts in texts_by_context),
        "distinct_2": _sum(distinct_share(texts, 2) for texts in texts_by_context),
        "duplicate": _sum(
            float(text in texts[:place])
            for texts in texts_by_context
            for place, text in enumerate(texts)
        ),
        "ungraded": _sum(float(answer.outcome is Outcome.UNGRADED) for answer in answers),
    }
    return {name: measure for name, measure in measures.items() if measure.n}


def _graded_answers(record: ContextRecord) -> list[AnswerRecord]:
    """Answers of all adapted models to the context's own questions, graded or to be graded.

    Others have no grade for a reason that is no grader's: the adapted model is of no use.
    """
    return [
        answer
        for loop in record.inner_loops
        if loop.evaluation is not None and loop.training is not None
        for answer in loop.evaluation.answers
        if answer.outcome in (Outcome.OK, Outcome.UNGRADED)
    ]


def shard_outcomes(records: Sequence[ContextRecord]) -> dict[str, int]:
    """Inner loops by outcome.

    Open-book answers are no inner loop: counted, they would hide how many of these have no score.
    """
    outcomes = Counter(
        str(loop.outcome)
        for record in records
        for loop in record.inner_loops
        if loop.kind != "open-book"
    )
    return dict(sorted(outcomes.items()))


def shard_tokens(
    records: Sequence[ContextRecord], retained: Mapping[Alone, EvaluationRecord]
) -> dict[str, int]:
    """Tokens by kind, of all attempts together: each piece of work counts once."""
    return {
        "generate": sum(edit.tokens for record in records for edit in record.edits),
        "train": sum(
            loop.training.tokens
            for record in records
            for loop in record.inner_loops
            if loop.training
        ),
        "evaluate": sum(evaluation.tokens for evaluation in _evaluations(records, retained)),
    }


def shard_engine_seconds(
    records: Sequence[ContextRecord], retained: Mapping[Alone, EvaluationRecord]
) -> dict[str, float]:
    """Engine seconds by kind, of all attempts together."""
    return {
        "generate": sum(record.engine_seconds_generate for record in records),
        "train": sum(
            loop.training.engine_seconds
            for record in records
            for loop in record.inner_loops
            if loop.training
        ),
        "evaluate": sum(
            evaluation.engine_seconds for evaluation in _evaluations(records, retained)
        ),
    }


def _evaluations(
    records: Sequence[ContextRecord], retained: Mapping[Alone, EvaluationRecord]
) -> list[EvaluationRecord]:
    """Every evaluation of the shard."""
    found = [record.baseline for record in records] + [*retained.values()]
    for record in records:
        for loop in record.inner_loops:
            found += [evaluation for evaluation in (loop.evaluation, loop.retained) if evaluation]
    return found
