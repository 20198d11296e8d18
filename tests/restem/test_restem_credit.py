"""Which parts of an edit helped, by the scores of single queries."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from benchmarks.credit import THRESHOLD, by_credit, measure, simulate
from seal.restem.credit import Trial, credit_parts


def trial(
    *responsibility: tuple[float, ...],
    scores: tuple[float | None, ...],
    parts: tuple[int, ...] | None = None,
    repeat: int = 0,
    candidate: int = 0,
) -> Trial:
    return Trial(
        candidate=candidate,
        repeat=repeat,
        parts=tuple(range(len(responsibility))) if parts is None else parts,
        responsibility_P_Q=np.array(responsibility, dtype=float).reshape(-1, len(scores)),
        scores_Q=scores,
    )


@pytest.mark.parametrize(
    ("candidates", "repeats", "at_least"),
    [(1, 1, 0.30), (1, 3, 0.55), (2, 2, 0.55), (4, 1, 0.50), (4, 3, 0.65), (8, 2, 0.65)],
)
def test_credit_ranks_parts_by_what_they_do_where_whole_edits_hardly_can(
    candidates: int, repeats: int, at_least: float
) -> None:
    found = measure(candidates=candidates, repeats=repeats, contexts=25, seed=7)
    assert found.credit > at_least
    assert found.credit > max(found.whole_edit, found.without_agreement) + 0.15
    assert found.whole_edit < 0.25


@pytest.mark.parametrize("candidates", [1, 4])
def test_what_credit_keeps_is_worth_far_more_than_any_part(candidates: int) -> None:
    found = measure(candidates=candidates, repeats=2, contexts=25, seed=3)
    assert found.kept >= 1
    assert found.kept_worth > found.any_worth + 0.12
    assert found.idle_kept < 0.03


@pytest.mark.parametrize("candidates", [1, 4])
def test_parts_that_can_do_nothing_are_kept_in_fewer_than_two_of_a_hundred(candidates: int) -> None:
    credits = np.concatenate(
        [
            by_credit(context)[context.held_C_P.any(axis=0)]
            for number in range(60)
            for context in [
                simulate(
                    np.random.default_rng([9, candidates, number]),
                    candidates=candidates,
                    repeats=1,
                    all_idle=True,
                )
            ]
        ]
    )
    assert np.mean(credits > THRESHOLD) < 0.02
    assert abs(np.mean(credits)) < 0.01


def test_a_part_that_answers_for_no_query_has_no_credit() -> None:
    credits = credit_parts([trial((0.8,), (0.0,), scores=(1.0,))], parts=3, baseline_Q=(0.0,))
    assert credits[0] is not None and credits[0] > 0.1
    assert credits[1:] == (None, None)


def test_a_wrong_pair_that_takes_a_querys_place_is_blamed() -> None:
    (alone,) = credit_parts([trial((0.8,), scores=(0.0,))], parts=1, baseline_Q=(1.0,))
    assert alone is not None and alone < -0.1
    beside = credit_parts(
        [
            trial((0.8,), parts=(0,), scores=(0.0,)),
            *(trial((0.8,), parts=(1,), scores=(1.0,), candidate=c) for c in (1, 2, 3)),
        ],
        parts=2,
        baseline_Q=(0.0,),
    )
    assert beside[0] is not None and beside[0] < 0 < (beside[1] or 0)


def test_what_every_candidate_scores_without_a_part_is_not_the_parts_merit() -> None:
    helped = trial((0.8,), parts=(0,), scores=(1.0,))
    others = [trial(parts=(), scores=(1.0,), candidate=c) for c in (1, 2, 3)]
    others_fail = [trial(parts=(), scores=(0.0,), candidate=c) for c in (1, 2, 3)]
    (no_merit,) = credit_parts([helped, *others], parts=1, baseline_Q=(0.0,))
    (merit,) = credit_parts([helped, *others_fail], parts=1, baseline_Q=(0.0,))
    assert no_merit is not None and merit is not None and no_merit < 0.6 * merit


def test_the_luck_of_a_repeat_is_no_merit_of_a_part() -> None:
    helped = trial((0.8,), parts=(0,), scores=(1.0,))
    lucky = [trial(parts=(), scores=(1.0,), candidate=c) for c in (1, 2, 3)]
    elsewhere = [trial(parts=(), scores=(1.0,), candidate=c, repeat=1) for c in (1, 2, 3)]
    (shared,) = credit_parts([helped, *lucky], parts=1, baseline_Q=(0.0,))
    (own,) = credit_parts([helped, *elsewhere], parts=1, baseline_Q=(0.0,))
    assert shared is not None and own is not None and shared < own


def test_a_part_that_comes_again_and_helps_again_is_surer() -> None:
    once = credit_parts([trial((0.6,), scores=(1.0,))], parts=1, baseline_Q=(0.0,))
    twice = credit_parts(
        [trial((0.6,), scores=(1.0,)), trial((0.6,), scores=(1.0,), repeat=1)],
        parts=1,
        baseline_Q=(0.0,),
    )
    mixed = credit_parts(
        [trial((0.6,), scores=(1.0,)), trial((0.6,), scores=(0.0,), repeat=1)],
        parts=1,
        baseline_Q=(0.0,),
    )
    assert (twice[0] or 0) > (once[0] or 0) > (mixed[0] or 0) > 0


def test_a_missing_score_is_no_evidence() -> None:
    with_missing = trial((0.8, 0.5), scores=(1.0, None))
    first_alone = credit_parts([trial((0.8,), scores=(1.0,))], parts=1, baseline_Q=(0.0,))
    assert credit_parts([with_missing], parts=1, baseline_Q=(0.0, 0.0)) == first_alone
    assert credit_parts([with_missing], parts=1, baseline_Q=(0.0, None)) == first_alone
    assert credit_parts([with_missing], parts=1, baseline_Q=(None, 0.0)) == (None,)
    assert credit_parts([], parts=2, baseline_Q=(0.0,)) == (None, None)


def test_the_order_of_the_trials_does_not_show() -> None:
    trials = [
        trial((0.7, 0.0), (0.3, 0.2), parts=(0, 1), scores=(1.0, 0.0)),
        trial((0.7, 0.1), (0.1, 0.4), parts=(0, 2), scores=(0.3, 1.0), candidate=1),
        trial((0.2, 0.6), parts=(1,), scores=(0.7, 0.1), repeat=1, candidate=2),
    ]
    found = {credit_parts(order, parts=3, baseline_Q=(0.1, 0.2)) for order in permutations(trials)}
    assert len(found) == 1


def test_a_score_that_differs_in_its_last_bits_alone_gives_no_credit() -> None:
    (credit,) = credit_parts([trial((1.0,), scores=(0.1 + 0.2,))], parts=1, baseline_Q=(0.3,))
    assert credit == 0
