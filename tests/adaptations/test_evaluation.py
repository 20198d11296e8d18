"""What an adapter is worth, from the answers of three models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seal.adaptations.evaluation import Answers, by_passage, evaluate_adapter
from seal.adaptations.retained import part_retained
from seal.domains.base import Context, Query
from seal.outcomes import Outcome
from seal.records import AnswerRecord, EvaluationRecord, Measure, ScoredModel


def answers(scores: Mapping[str, Sequence[float | None]]) -> EvaluationRecord:
    """A model's F1 on the questions of each passage; None could not be graded."""
    found = tuple(
        AnswerRecord(
            query_id=f"{passage}/{number}",
            question="?",
            golds=("x",),
            answer="x",
            outcome=Outcome.UNGRADED if score is None else Outcome.OK,
            score=score,
            measures={"exact": 0.0, "contains": 0.0, "f1": score or 0.0},
            logprob=-2.0,
        )
        for passage, own in scores.items()
        for number, score in enumerate(own)
    )
    return EvaluationRecord(
        outcome=Outcome.OK,
        reward=None,
        answers=found,
        ungraded=0,
        max_logit_difference=1.0,
        tokens=1,
        engine_seconds=0.1,
    )


def mean(found: Sequence[object], model: ScoredModel, measure: Measure = "f1") -> float | None:
    return next(
        (
            one.value.mean  # type: ignore[attr-defined]
            for one in found
            if (one.model, one.measure) == (model, measure)  # type: ignore[attr-defined]
        ),
        None,
    )


def test_scores_are_means_over_passages_and_what_is_ungraded_is_in_none() -> None:
    record = answers({"a": [1.0, None, 0.0], "b": [1.0], "c": [None]})
    assert by_passage(record, "f1") == {"a": 0.5, "b": 1.0, "c": None}
    held_out: Answers = {
        "base": answers({"a": [0.0] * 3, "b": [0.0], "c": [0.0]}),
        "adapter": record,
    }
    found = evaluate_adapter(held_out, {}, self_made=True, seed=0)
    assert mean(found.scores, "adapter") == 0.75
    assert found.gain is not None and (found.gain.mean, found.gain.n) == (0.75, 2)
    assert found.self_made and found.questions == 5 and found.retained_change is None


def test_an_adapter_without_answers_has_no_score_and_no_gain() -> None:
    found = evaluate_adapter({"base": answers({"a": [0.5]})}, {}, self_made=False, seed=0)
    assert mean(found.scores, "base") == 0.5 and mean(found.scores, "adapter") is None
    assert found.gain is None and found.differences == ()


def test_the_adapter_is_compared_with_base_and_passages_pair_by_pair() -> None:
    held_out: Answers = {
        "base": answers({"a": [0.0], "b": [0.4]}),
        "passages": answers({"a": [0.5], "b": [0.5]}),
        "adapter": answers({"a": [0.6], "b": [1.0]}),
    }
    retained: Answers = {"base": answers({"r": [0.8, 0.6]}), "adapter": answers({"r": [0.7, 0.5]})}
    found = evaluate_adapter(held_out, retained, self_made=False, seed=3)
    means = {(one.against, one.measure): one.value.mean for one in found.differences}
    assert means["base", "f1"] == 0.6 and means["passages", "f1"] == 0.3
    assert found.retained_change is not None and found.retained_change.mean == -0.1
    assert found.retained_questions == 2
    assert found == evaluate_adapter(held_out, retained, self_made=False, seed=3)


def test_no_passage_of_the_retained_set_is_both_replayed_and_asked() -> None:
    contexts = [
        Context(f"r{number}", "", f"About {number}.", tuple(_query(number, n) for n in range(3)))
        for number in range(4)
    ]
    for replay, passages in ((0, 0), (1, 1), (4, 2), (100, 3)):
        parted = part_retained(contexts, questions=5, replay=replay, seed=1)
        replayed = {context.context_id for context in parted.replayed}
        asked = [query.query_id.rpartition("/")[0] for query in parted.queries]
        assert len(replayed) == passages and replayed.isdisjoint(asked)
        assert len(asked) == min(5, 3 * (4 - passages))
        assert len(set(asked[: 4 - passages])) == 4 - passages, "one of each before two of any"
        assert all(query.context for query in parted.queries)


def _query(passage: int, number: int) -> Query:
    return Query(f"{passage}-{number}", "What?", ("x",))


def test_a_difference_is_over_the_questions_that_both_have_a_grade_of() -> None:
    held_out: Answers = {
        "base": answers({"a": [1.0, 0.0], "b": [1.0, 0.0]}),
        "adapter": answers({"a": [1.0, None], "b": [1.0, 0.0]}),
    }
    found = evaluate_adapter(held_out, {}, self_made=True, seed=0)
    assert mean(found.differences, "adapter") == 0.0, "an ungraded answer is no gain"
