"""Selection: the best edits of each context, if they helped.

The order in which results come in does not show.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.restem.reward import gain, mean
from seal.restem.select import Candidate, DropReason, Selection, select

BASE = Candidate(
    context_id="c",
    candidate=0,
    characters=4,
    outcome=Outcome.OK,
    rewards=(0.5,),
    logprob=-1.0,
    baseline=0.25,
)
SCORES = st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0, math.nan])


def of(
    *rewards: float | None, baseline: float | None = 0.25, context: str = "c"
) -> list[Candidate]:
    """One candidate per reward."""
    return [
        replace(BASE, context_id=context, candidate=index, rewards=(reward,), baseline=baseline)
        for index, reward in enumerate(rewards)
    ]


def kept(selection: Selection) -> list[int]:
    return [one.candidate.candidate for one in selection.kept]


def reasons(selection: Selection) -> dict[int, DropReason]:
    return {one.candidate.candidate: one.reason for one in selection.dropped}


@st.composite
def rounds(draw: st.DrawFn) -> list[Candidate]:
    """The candidates of a few contexts, some without scores."""
    found = []
    for context in range(draw(st.integers(0, 3))):
        baseline = draw(SCORES)
        found += [
            Candidate(
                context_id=f"c{context}",
                candidate=index,
                characters=draw(st.integers(0, 3)),
                outcome=draw(st.sampled_from(list(Outcome) + [Outcome.OK] * 8)),
                rewards=tuple(draw(st.lists(SCORES, max_size=3))),
                logprob=draw(st.sampled_from([None, -1.0, -2.0, math.nan])),
                baseline=baseline,
            )
            for index in range(draw(st.integers(1, 5)))
        ]
    return found


def test_nothing_selects_nothing() -> None:
    assert select([]) == Selection((), ())


def test_fewer_than_one_kept_edit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0 edits cannot be kept") as caught:
        select(of(0.5), keep_per_context=0)
    assert caught.value.field == "improve.keepPerContext"


def test_a_candidate_given_twice_is_refused_because_a_reward_counts_once() -> None:
    with pytest.raises(InvalidInput, match="candidate 0 of context 'c' is given twice"):
        select([*of(0.5), *of(0.5)])


@pytest.mark.parametrize("reward", [0.25, 0.0, 0.25 + 1e-12])
def test_the_best_edit_is_dropped_if_it_gained_nothing(reward: float) -> None:
    selection = select(of(reward, -1.0))
    assert (kept(selection), reasons(selection)) == (
        [],
        {0: DropReason.NO_GAIN, 1: DropReason.NO_GAIN},
    )


@pytest.mark.parametrize("reward", [0.75, 0.25, 0.0])
def test_a_context_whose_edits_all_scored_alike_is_dropped(reward: float) -> None:
    selection = select(of(reward, reward + 1e-12, reward))
    assert (kept(selection), set(reasons(selection).values())) == ([], {DropReason.ALL_EQUAL})


def test_means_that_differ_in_the_last_bit_are_equal() -> None:
    one = replace(BASE, candidate=0, rewards=(0.1, 0.2, 0.3), baseline=0.0)
    other = replace(BASE, candidate=1, rewards=(0.2, 0.2, 0.2), baseline=0.0)
    assert set(reasons(select([one, other])).values()) == {DropReason.ALL_EQUAL}


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_an_edit_that_did_not_end_well_is_dropped_by_its_outcome_and_is_not_a_zero(
    outcome: Outcome,
) -> None:
    failed = replace(BASE, candidate=1, outcome=outcome, rewards=())
    selection = select([BASE, failed])
    assert (kept(selection), reasons(selection)) == ([0], {1: DropReason(outcome.value)})


@pytest.mark.parametrize("rewards", [(), (None,), (None, math.nan), (math.inf,)])
def test_an_edit_without_any_reward_is_ungraded(rewards: tuple[float | None, ...]) -> None:
    assert reasons(select([replace(BASE, rewards=rewards)])) == {0: DropReason.UNGRADED}


@pytest.mark.parametrize("baseline", [None, math.nan])
def test_without_a_baseline_no_gain_is_known_and_nothing_is_kept(baseline: float | None) -> None:
    assert set(reasons(select(of(0.5, 1.0, baseline=baseline))).values()) == {DropReason.UNGRADED}


def test_the_best_is_kept_and_the_others_say_why_not() -> None:
    selection = select(of(0.5, 0.75, 0.0, None))
    assert kept(selection) == [1]
    assert reasons(selection) == {
        0: DropReason.NOT_BEST,
        2: DropReason.NO_GAIN,
        3: DropReason.UNGRADED,
    }
    assert selection.counts == {"no-gain": 1, "not-best": 1, "ungraded": 1}
    assert (selection.kept[0].reward, selection.kept[0].gain) == (0.75, 0.5)


def test_several_are_kept_best_first_but_never_one_without_gain() -> None:
    assert kept(select(of(0.5, 0.75, 0.25), keep_per_context=3)) == [1, 0]


def test_a_missing_repeat_is_left_out_of_the_reward() -> None:
    selection = select(
        [
            replace(BASE, candidate=0, rewards=(1.0, None, math.nan)),
            replace(BASE, candidate=1, rewards=(0.75, 0.75, 0.75)),
        ]
    )
    assert (kept(selection), selection.kept[0].reward) == ([0], 1.0)


def test_ties_go_to_the_higher_log_probability_then_the_shorter_edit_then_the_lower_index() -> None:
    low = replace(BASE, candidate=9, rewards=(0.0,))
    tied = [
        replace(BASE, candidate=0, logprob=-2.0, characters=1),
        replace(BASE, candidate=1, logprob=None, characters=0),
        replace(BASE, candidate=2, logprob=-1.0, characters=2),
        replace(BASE, candidate=3, logprob=-1.0, characters=1),
        replace(BASE, candidate=4, logprob=-1.0, characters=1),
    ]
    assert kept(select([low, *tied], keep_per_context=5)) == [3, 4, 2, 0, 1]


def test_rewards_that_differ_in_their_last_bits_are_tied() -> None:
    tied = [replace(one, characters=9) for one in of(0.1 + 0.2, 0.0)]
    shorter = replace(BASE, candidate=2, rewards=(0.3,), characters=4)
    assert kept(select([*tied, shorter])) == [2]


def test_contexts_do_not_compete() -> None:
    selection = select([*of(1.0, 0.5, context="b"), *of(0.3, 0.0, context="a")])
    assert [(one.candidate.context_id, one.candidate.candidate) for one in selection.kept] == [
        ("a", 0),
        ("b", 0),
    ]


def test_the_control_draws_as_many_of_each_context_without_looking_at_the_reward() -> None:
    candidates = [
        one for index in range(60) for one in of(0.5, 0.75, 0.0, None, context=f"c{index}")
    ] + of(0.5, 0.5, context="equal")
    by_chance = select(candidates, control_seed=1)
    assert [one.candidate.context_id for one in by_chance.kept] == [
        one.candidate.context_id for one in select(candidates).kept
    ]
    drawn = kept(by_chance)
    assert 3 not in drawn and all(10 < drawn.count(index) < 30 for index in range(3))
    assert by_chance.counts == {"all-equal": 2, "not-chosen": 120, "ungraded": 60}
    assert any(one.gain < 0 for one in by_chance.kept)
    assert kept(select(candidates, control_seed=2)) != drawn


@given(candidates=rounds(), keep=st.integers(1, 3), seed=st.sampled_from([None, 1]), data=st.data())
@settings(deadline=None)
def test_the_order_of_the_candidates_does_not_show(
    candidates: list[Candidate], keep: int, seed: int | None, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(candidates))
    assert repr(select(shuffled, keep_per_context=keep, control_seed=seed)) == repr(
        select(candidates, keep_per_context=keep, control_seed=seed)
    )


@given(candidates=rounds(), keep=st.integers(1, 3))
@settings(deadline=None)
def test_every_candidate_is_kept_or_dropped_once_and_only_gains_are_kept(
    candidates: list[Candidate], keep: int
) -> None:
    selection = select(candidates, keep_per_context=keep)
    divided = [one.candidate for one in selection.kept] + [
        one.candidate for one in selection.dropped
    ]
    assert sorted((one.context_id, one.candidate) for one in divided) == sorted(
        (one.context_id, one.candidate) for one in candidates
    )
    assert all(one.gain > 0 and one.candidate.outcome is Outcome.OK for one in selection.kept)
    assert sum(selection.counts.values()) == len(selection.dropped)
    for context in {one.candidate.context_id for one in selection.kept}:
        of_context = [one.reward for one in selection.kept if one.candidate.context_id == context]
        beaten = [
            one.candidate.reward for one in selection.dropped if one.candidate.context_id == context
        ]
        assert len(of_context) <= keep
        assert of_context == sorted(of_context, reverse=True)
        assert all(reward <= min(of_context) + 1e-9 for reward in beaten if reward is not None)


@pytest.mark.parametrize(
    ("reward", "baseline"), [(None, 0.5), (0.5, None), (math.nan, 0.5), (0.5, math.inf)]
)
def test_a_gain_is_missing_if_either_side_is(reward: float | None, baseline: float | None) -> None:
    assert gain(reward, baseline) is None


def test_a_mean_leaves_out_what_is_missing_and_is_missing_without_values() -> None:
    assert mean([1.0, None, 0.0, math.nan]) == 0.5
    assert mean([None, math.inf]) is None
    assert gain(0.75, 0.5) == 0.25
