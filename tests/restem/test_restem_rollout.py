"""From a rollout's records to its selection record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopKind,
    InnerLoopRecord,
    LearntRow,
    PartRecord,
)
from seal.restem.rollout import candidates_of, control_seed_of, select_records
from seal.settings import RunSpec


def evaluation(reward: float | None, *, logprob: float = -1.0) -> EvaluationRecord:
    outcome = Outcome.UNGRADED if reward is None else Outcome.OK
    answer = AnswerRecord(
        query_id="q",
        question="?",
        golds=("g",),
        answer="a",
        outcome=outcome,
        score=reward,
        measures={},
        logprob=logprob,
    )
    return EvaluationRecord(
        outcome=outcome,
        reward=reward,
        answers=(answer,),
        ungraded=int(reward is None),
        max_logit_difference=1,
        tokens=1,
        engine_seconds=0,
    )


def loop(
    candidate: int,
    repeat: int,
    reward: float | None,
    *,
    kind: InnerLoopKind = "edit",
    logprob: float = -1.0,
) -> InnerLoopRecord:
    """An inner loop that was trained and evaluated."""
    return InnerLoopRecord(
        kind=kind,
        context_id="c",
        candidate=candidate,
        repeat=repeat,
        outcome=Outcome.UNGRADED if reward is None else Outcome.OK,
        training=None,
        evaluation=evaluation(reward, logprob=logprob),
        retained=None,
    )


def failed(candidate: int, repeat: int, outcome: Outcome) -> InnerLoopRecord:
    """An inner loop that ended before its evaluation."""
    return loop(candidate, repeat, None).model_copy(update={"outcome": outcome, "evaluation": None})


def record(
    *loops: InnerLoopRecord, edits: int = 3, context_id: str = "c", baseline: float | None = 0.25
) -> ContextRecord:
    return ContextRecord(
        context_id=context_id,
        title="Veldra",
        parts=(PartPromptRecord(prompt="the prompt"),),
        baseline=evaluation(baseline),
        edits=tuple(
            EditRecord(
                context_id=context_id,
                candidate=index,
                seed=index,
                parts=(PartRecord(text=f"edit {index}", tokens=2, truncated=False),),
                examples=(ExampleRecord(prompt="", completion="x"),),
            )
            for index in range(edits)
        ),
        inner_loops=loops,
        engine_seconds_generate=0,
    )


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.CANCELLED, Outcome.UNGRADED])
def test_a_candidate_whose_repeats_all_failed_is_dropped_by_their_outcome(outcome: Outcome) -> None:
    loops = [failed(0, repeat, outcome) for repeat in range(2)]
    selection = select_records([record(*loops, edits=1)], round=1, keep_per_context=1)
    assert (selection.kept, selection.dropped) == ((), {outcome.value: 1})


def test_a_candidate_whose_answers_could_not_be_graded_is_ungraded() -> None:
    assert select_records(
        [record(loop(0, 0, None), edits=1)], round=1, keep_per_context=1
    ).dropped == {"ungraded": 1}


def judged(*scores: float | None) -> EvaluationRecord:
    """An evaluation of as many queries; None is a verdict that the judge failed to give."""
    answers = tuple(
        evaluation(score).answers[0].model_copy(update={"query_id": f"q{place}"})
        for place, score in enumerate(scores)
    )
    given = [score for score in scores if score is not None]
    reward = sum(given) / len(given) if given else None
    return evaluation(reward).model_copy(
        update={"answers": answers, "ungraded": len(scores) - len(given)}
    )


@pytest.mark.parametrize(
    ("baseline", "edit", "reward"),
    [
        ((1.0, 0.0), (1.0, None), None),  # the same answers are no gain of a half
        ((1.0, None), (1.0, 0.0), 1.0),
        ((1.0, None), (0.0, None), 0.0),
        ((None, None), (1.0, None), 1.0),
    ],
)
def test_an_edit_is_compared_over_the_queries_that_the_baseline_has_grades_of(
    baseline: tuple[float | None, ...], edit: tuple[float | None, ...], reward: float | None
) -> None:
    ran = loop(0, 0, 1.0).model_copy(update={"evaluation": judged(*edit)})
    one = record(ran, edits=1).model_copy(update={"baseline": judged(*baseline)})
    (candidate,) = candidates_of(one)
    assert candidate.rewards == (reward,)


def test_an_edit_without_examples_is_invalid() -> None:
    empty = record(failed(0, 0, Outcome.INVALID), edits=1)
    empty = empty.model_copy(
        update={"edits": (empty.edits[0].model_copy(update={"examples": ()}),)}
    )
    assert select_records([empty], round=1, keep_per_context=1).dropped == {"invalid": 1}


def test_an_edit_without_examples_that_was_measured_as_the_passage_is_scored_like_any_other() -> (
    None
):
    empty = record(failed(0, 0, Outcome.DIVERGED), loop(0, 1, 0.5), edits=1)
    empty = empty.model_copy(
        update={"edits": (empty.edits[0].model_copy(update={"examples": ()}),)}
    )
    (candidate,) = candidates_of(empty)
    assert (candidate.outcome, candidate.reward) == (Outcome.OK, 0.5)


def test_an_edit_without_any_inner_loop_is_ungraded() -> None:
    assert select_records([record(edits=1)], round=1, keep_per_context=1).dropped == {"ungraded": 1}


def test_a_missing_baseline_keeps_nothing() -> None:
    assert select_records(
        [record(loop(0, 0, 1.0), edits=1, baseline=None)], round=1, keep_per_context=1
    ).dropped == {"ungraded": 1}


def test_a_candidate_is_scored_by_the_repeats_that_ended_well() -> None:
    loops = [
        loop(0, 1, 0.5, logprob=-3.0),
        loop(0, 0, 1.0, logprob=-1.0),
        failed(0, 2, Outcome.DIVERGED),
    ]
    (candidate,) = candidates_of(record(*loops, edits=1))
    assert (candidate.outcome, candidate.rewards, candidate.reward, candidate.logprob) == (
        Outcome.OK,
        (1.0, 0.5, None),
        0.75,
        -2.0,
    )


def test_adapters_of_the_bounds_are_no_candidates() -> None:
    loops = [
        loop(0, 0, 0.5),
        loop(0, 0, 1.0, kind="passage"),
        loop(0, 0, 1.0, kind="gold"),
        loop(1, 0, 0.25),
    ]
    assert [candidate.rewards for candidate in candidates_of(record(*loops, edits=2))] == [
        (0.5,),
        (0.25,),
    ]


def test_the_kept_edit_carries_what_the_m_step_learns() -> None:
    selection = select_records(
        [record(loop(0, 0, 0.25), loop(1, 0, 0.75), loop(2, 0, 0.5))], round=2, keep_per_context=1
    )
    (kept,) = selection.kept
    assert (selection.round, selection.dropped) == (2, {"no-gain": 1, "not-best": 1})
    assert (kept.context_id, kept.candidate, kept.reward, kept.gain) == ("c", 1, 0.75, 0.5)
    assert kept.rows == (LearntRow(part=0, prompt="the prompt", completion="edit 1"),)


def test_the_digest_changes_with_what_is_kept_and_not_with_what_is_dropped() -> None:
    best = select_records([record(loop(0, 0, 0.75), loop(1, 0, 0.5))], round=1, keep_per_context=1)
    lower = select_records([record(loop(0, 0, 0.75), loop(1, 0, 0.0))], round=1, keep_per_context=1)
    other = select_records([record(loop(0, 0, 0.5), loop(1, 0, 0.75))], round=1, keep_per_context=1)
    assert best.sha256 == lower.sha256 != other.sha256


@given(order=st.permutations(range(4)), keep=st.integers(1, 3))
@settings(deadline=None)
def test_the_order_of_the_records_does_not_show(order: list[int], keep: int) -> None:
    records = [
        record(
            *(loop(c, 0, (index + c) % 3 / 2) for c in range(3)),
            context_id=f"c{index}",
            baseline=0.0,
        )
        for index in range(4)
    ]
    expected = select_records(records, round=1, keep_per_context=keep)
    assert (
        select_records([records[index] for index in order], round=1, keep_per_context=keep)
        == expected
    )
    assert expected.kept


def test_the_control_without_reward_is_labelled_and_drawn_by_the_seed_of_its_round() -> None:
    spec = RunSpec(seed=3)
    by_chance = spec.model_copy(
        update={"improve": spec.improve.model_copy(update={"selection": "random"})}
    )
    seeds = [control_seed_of(by_chance, round) for round in (1, 2)]
    assert control_seed_of(spec, 1) is None and len({None, *seeds}) == 3
    records = [record(loop(0, 0, 0.75), loop(1, 0, 0.5))]
    labels = [
        select_records(records, round=1, keep_per_context=1, control_seed=seed).label
        for seed in (None, *seeds)
    ]
    assert labels == ["", "control without reward", "control without reward"]
