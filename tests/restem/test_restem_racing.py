"""Racing: who gets the next repeat, and who competes in the end.

And what the selection makes of unequal numbers of repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_restem_rollout import failed, loop, record

from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.records import ContextRecord
from seal.restem.racing import Runner, advance, finalists, rung_sizes
from seal.restem.reward import mean, present
from seal.restem.rollout import candidates_of, runner_of, select_records, shared_repeats

SCORES = st.sampled_from([None, math.nan, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
FAILURES = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.OK])


def runner(
    candidate: int,
    *scores: float | None,
    outcome: Outcome = Outcome.OK,
    logprob: float | None = None,
    characters: int = 0,
) -> Runner:
    return Runner(
        candidate=candidate, outcome=outcome, scores=scores, logprob=logprob, characters=characters
    )


@st.composite
def races(draw: st.DrawFn) -> tuple[list[list[float | None]], tuple[int, ...], list[Outcome]]:
    """Scores [candidate][repeat] of a race, its survivors, and how candidates without any ended."""
    rungs = draw(st.integers(2, 4))
    sizes = sorted(draw(st.sets(st.integers(1, 12), min_size=rungs, max_size=rungs)), reverse=True)
    table = [draw(st.lists(SCORES, min_size=rungs, max_size=rungs)) for _ in range(sizes[0])]
    return table, tuple(sizes[1:]), [draw(FAILURES) for _ in range(sizes[0])]


def run_race(
    table: Sequence[Sequence[float | None]], survivors: Sequence[int], failures: Sequence[Outcome]
) -> list[list[Runner]]:
    """The runners after every rung."""
    rungs: list[list[Runner]] = []
    running: Sequence[int] = range(len(table))
    for repeat in range(len(survivors) + 1):
        runners = [
            runner(
                c,
                *table[c][: repeat + 1],
                outcome=Outcome.OK if present(table[c][: repeat + 1]) else failures[c],
            )
            for c in running
        ]
        rungs.append(runners)
        if repeat < len(survivors):
            running = advance(runners, survivors[repeat])
    return rungs


@pytest.mark.parametrize(
    ("candidates", "repeats", "survivors", "sizes"),
    [
        (5, 3, (), (5, 5, 5)),
        (5, 2, (2,), (5, 2)),
        (10, 3, (3, 2), (10, 3, 2)),
        (2, 2, (1,), (2, 1)),
        (0, 3, (), (0, 0, 0)),
    ],
)
def test_a_schedule_says_how_many_run_each_repeat(
    candidates: int, repeats: int, survivors: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    assert rung_sizes(candidates, repeats=repeats, survivors=survivors) == sizes


@pytest.mark.parametrize("survivors", [(5,), (6,), (0,), (-1,), (2, 2), (2, 3), (3, 0)])
def test_survivors_that_do_not_fall_are_refused(survivors: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="do not become fewer with every repeat") as caught:
        rung_sizes(5, repeats=len(survivors) + 1, survivors=survivors)
    assert caught.value.field == "inner.racing" and "below edit.k = 5" in caught.value.remedy


@pytest.mark.parametrize(
    ("repeats", "remedy"),
    [(1, "set inner.repeats to 2, or inner.racing to []"), (3, "or inner.racing to 2 numbers")],
)
def test_a_race_that_contradicts_the_repeats_is_refused(repeats: int, remedy: str) -> None:
    with pytest.raises(
        InvalidInput, match=f"has 2 repeats, but inner.repeats is {repeats}"
    ) as caught:
        rung_sizes(5, repeats=repeats, survivors=(2,))
    assert remedy in caught.value.remedy


def test_the_best_go_on() -> None:
    assert advance([runner(0, 0.2), runner(1, 0.8), runner(2, 0.4), runner(3, 0.6)], 2) == (1, 3)


def test_later_rungs_rank_by_the_mean_of_all_repeats_so_far() -> None:
    assert advance([runner(0, 1.0, 0.0), runner(1, 0.6, 0.6), runner(2, 0.5, 0.6)], 1) == (1,)


def test_ties_go_to_the_higher_log_probability_then_the_shorter_edit_then_the_lower_index() -> None:
    tied = [
        runner(0, 0.5, logprob=-2.0),
        runner(1, 0.5 + 1e-12, logprob=None),
        runner(2, 0.5, logprob=-1.0, characters=9),
        runner(3, 0.5, logprob=-1.0, characters=4),
        runner(4, 0.5, logprob=-1.0, characters=4),
    ]
    assert [advance(tied, n) for n in (1, 2, 3, 4)] == [(3,), (3, 4), (2, 3, 4), (0, 2, 3, 4)]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_repeat_without_a_score_puts_a_candidate_behind_all_that_have_theirs(
    missing: float | None,
) -> None:
    assert advance([runner(0, 1.0, missing), runner(1, 0.0, 0.1)], 1) == (1,)


def test_candidates_without_a_score_survive_only_where_others_lack_and_invalid_ones_last() -> None:
    rest = [
        runner(candidate, None, outcome=outcome)
        for candidate, outcome in enumerate(
            [Outcome.INVALID, Outcome.DIVERGED, Outcome.CANCELLED, Outcome.UNGRADED]
        )
    ]
    runners = [*rest, runner(4, 0.0)]
    assert [advance(runners, n) for n in (1, 2, 3, 4)] == [(4,), (3, 4), (2, 3, 4), (1, 2, 3, 4)]


@given(race=races())
@settings(deadline=None)
def test_a_race_uses_the_inner_loops_of_its_schedule_whatever_is_missing(
    race: tuple[list[list[float | None]], tuple[int, ...], list[Outcome]],
) -> None:
    table, survivors, failures = race
    sizes = [len(runners) for runners in run_race(table, survivors, failures)]
    assert tuple(sizes) == rung_sizes(len(table), repeats=len(survivors) + 1, survivors=survivors)


@given(race=races())
@settings(deadline=None)
def test_no_loser_of_a_rung_has_as_many_scores_and_a_better_mean_than_a_survivor(
    race: tuple[list[list[float | None]], tuple[int, ...], list[Outcome]],
) -> None:
    rungs = run_race(*race)
    for runners, following in pairwise(rungs):
        ahead = {each.candidate for each in following}
        assert ahead <= {each.candidate for each in runners}
        for winner in (each for each in runners if each.candidate in ahead):
            for loser in (each for each in runners if each.candidate not in ahead):
                won, lost = present(winner.scores), present(loser.scores)
                assert len(won) >= len(lost)
                assert len(won) > len(lost) or not won or math.fsum(won) >= math.fsum(lost) - 1e-8


@given(race=races(), data=st.data())
@settings(deadline=None)
def test_the_order_in_which_results_come_in_does_not_show(
    race: tuple[list[list[float | None]], tuple[int, ...], list[Outcome]], data: st.DataObject
) -> None:
    table, survivors, failures = race
    for runners in run_race(table, survivors, failures):
        shuffled = data.draw(st.permutations(runners))
        assert advance(shuffled, survivors[0]) == advance(runners, survivors[0])
        assert finalists(shuffled) == finalists(runners)


@given(race=races(), data=st.data())
@settings(deadline=None)
def test_relabelled_candidates_win_the_same_scores(
    race: tuple[list[list[float | None]], tuple[int, ...], list[Outcome]], data: st.DataObject
) -> None:
    """Permuting the candidates permutes the survivors, up to ties.

    The multiset of what survives is the same.
    """
    table, survivors, failures = race
    order = data.draw(st.permutations(range(len(table))))

    def first_rung(picked: Sequence[int]) -> list[tuple[int, float]]:
        runners = run_race([table[c] for c in picked], survivors, [failures[c] for c in picked])[0]
        ahead = set(advance(runners, survivors[0]))
        return sorted(
            (len(present(each.scores)), mean(each.scores) or 0.0)
            for each in runners
            if each.candidate in ahead
        )

    assert first_rung(order) == first_rung(range(len(table)))


@given(race=races())
@settings(deadline=None)
def test_finalists_ran_all_rungs_and_have_equally_many_scores(
    race: tuple[list[list[float | None]], tuple[int, ...], list[Outcome]],
) -> None:
    table, survivors, failures = race
    rungs = run_race(table, survivors, failures)
    ended = {each.candidate: each for rung in rungs for each in rung}
    final = finalists(list(ended.values()))
    assert final and final <= {each.candidate for each in rungs[-1]}
    assert len({len(present(ended[candidate].scores)) for candidate in final}) == 1


def test_without_a_race_all_compete_even_where_repeats_are_missing() -> None:
    assert finalists([runner(0, 0.5, None), runner(1, 0.5, 0.5), runner(2, None, None)]) == {
        0,
        1,
        2,
    }
    assert finalists([]) == frozenset()


def raced(*rewards: Sequence[float | None], baseline: float = 0.1) -> ContextRecord:
    """A context whose candidates ran so many repeats."""
    loops = [
        loop(candidate, repeat, reward)
        for candidate, each in enumerate(rewards)
        for repeat, reward in enumerate(each)
    ]
    return record(*loops, edits=len(rewards), baseline=baseline)


def test_what_was_not_preselected_makes_no_race_of_the_others_repeats() -> None:
    lacking = [loop(0, 0, 0.9), failed(0, 1, Outcome.DIVERGED)]
    whole = [loop(1, repeat, 0.5) for repeat in range(2)]
    for edits in (2, 3):  # the third has no inner loop
        selection = select_records(
            [record(*lacking, *whole, edits=edits)], round=1, keep_per_context=1
        )
        assert [(kept.candidate, kept.reward) for kept in selection.kept] == [(0, 0.9)]
        assert selection.dropped == {"not-best": 1} | ({"preselected": 1} if edits == 3 else {})


def test_a_lucky_loser_of_the_first_rung_does_not_beat_a_finalist() -> None:
    """The winner's curse: 0.7 once is not better than (0.8, 0.4)."""
    selection = select_records(
        [raced((0.8, 0.4), (0.7,), (0.8, 0.2), (0.1,))], round=1, keep_per_context=1
    )
    assert [(kept.candidate, kept.reward) for kept in selection.kept] == [(0, pytest.approx(0.6))]
    assert selection.dropped == {"eliminated": 2, "not-best": 1}


def test_no_more_than_the_finalists_are_kept_and_none_without_gain() -> None:
    selection = select_records(
        [raced((0.8, 0.4), (0.7,), (0.8, 0.2), baseline=0.55)], round=1, keep_per_context=3
    )
    assert [kept.candidate for kept in selection.kept] == [0]
    assert selection.dropped == {"eliminated": 1, "no-gain": 1}


def test_a_finalist_that_lost_its_last_repeat_is_not_compared_with_one_that_has_it() -> None:
    selection = select_records(
        [raced((0.9, None), (0.5, 0.5), (0.4,))], round=1, keep_per_context=1
    )
    assert [kept.candidate for kept in selection.kept] == [1]


def test_if_no_finalist_has_a_last_score_they_are_ranked_by_what_they_have() -> None:
    loops = [
        loop(0, 0, 0.6),
        failed(0, 1, Outcome.DIVERGED),
        loop(1, 0, 0.9),
        loop(1, 1, None),
        loop(2, 0, 0.2),
    ]
    selection = select_records([record(*loops)], round=1, keep_per_context=1)
    assert [kept.candidate for kept in selection.kept] == [1]


def test_equal_finalists_say_something_if_the_others_were_worse_and_nothing_if_they_were_not() -> (
    None
):
    worse = select_records([raced((0.8, 0.8), (0.8, 0.8), (0.2,))], round=1, keep_per_context=1)
    alike = select_records([raced((0.8, 0.6), (0.8, 0.6), (0.8,))], round=1, keep_per_context=1)
    assert len(worse.kept) == 1
    assert (alike.kept, alike.dropped) == ((), {"all-equal": 3})


def test_a_single_finalist_is_kept_if_it_gained() -> None:
    selection = select_records([raced((0.8, 0.6), (0.5,), (0.4,))], round=1, keep_per_context=1)
    assert [(kept.candidate, kept.reward) for kept in selection.kept] == [(0, pytest.approx(0.7))]


def test_a_mean_over_candidates_takes_the_repeats_that_all_of_them_ran() -> None:
    race = raced((1.0, 0.0), (0.8, 0.0), (0.3,), (0.3,))
    assert [candidate.rewards for candidate in candidates_of(shared_repeats(race))] == [
        (1.0,),
        (0.8,),
        (0.3,),
        (0.3,),
    ]
    whole = raced((1.0, 0.0), (0.8, None))
    assert shared_repeats(whole) == whole


def test_a_first_rung_may_rank_by_log_probability_even_where_nothing_could_be_graded() -> None:
    loops = [
        loop(0, 0, 1.0, logprob=-2.0),
        loop(1, 0, None, logprob=-0.5),
        loop(2, 0, 0.0, logprob=-1.0),
        failed(3, 0, Outcome.DIVERGED),
    ]
    edits = record(*loops, edits=4).edits
    by_logprob = [runner_of(edit, loops, first_rung="logprob") for edit in edits]
    assert [each.scores for each in by_logprob] == [(-2.0,), (-0.5,), (-1.0,), (None,)]
    assert advance(by_logprob, 2) == (1, 2)
    assert advance([runner_of(edit, loops) for edit in edits], 2) == (0, 2)


def test_an_adapter_that_is_of_no_use_does_not_win_a_first_rung_by_log_probability() -> None:
    inert = loop(0, 0, None, logprob=0.0)
    assert inert.evaluation is not None
    answers = tuple(
        answer.model_copy(update={"outcome": Outcome.INERT}) for answer in inert.evaluation.answers
    )
    evaluation = inert.evaluation.model_copy(update={"answers": answers})
    inert = inert.model_copy(update={"outcome": Outcome.INERT, "evaluation": evaluation})
    loops = [inert, loop(1, 0, 1.0, logprob=-0.5), loop(2, 0, 0.0, logprob=-2.0)]
    runners = [
        runner_of(edit, loops, first_rung="logprob") for edit in record(*loops, edits=3).edits
    ]
    assert runners[0].scores == (None,)
    assert advance(runners, 2) == (1, 2)


def test_later_rungs_rank_by_reward_whatever_the_first_one_ranked_by() -> None:
    loops = [loop(0, 0, 1.0, logprob=-2.0), loop(0, 1, 0.5, logprob=-2.0)]
    found = runner_of(record(*loops, edits=1).edits[0], loops, first_rung="logprob")
    assert found == replace(runner_of(record(*loops, edits=1).edits[0], loops), scores=(1.0, 0.5))
