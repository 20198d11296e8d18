"""Statistics: intervals over contexts, reliability of the reward, diversity of the edits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.records import Interval
from seal.restem.statistics import (
    PassCounts,
    clustered_interval,
    crossed_interval,
    diversity,
    mean_interval,
    paired_by_context,
    paired_differences,
    pass_counts,
    reliability,
    spearman_brown,
    success_interval,
)
from seal.restem.student import LEAST_FOR_A_VERDICT

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)
FEW = 200


def test_without_values_there_is_no_mean() -> None:
    assert mean_interval([None, math.nan], seed=0) is None
    assert paired_differences({"a": 1.0}, {"b": 1.0}) == {}


def test_one_context_says_nothing_about_the_spread() -> None:
    assert mean_interval([0.5, None], seed=0) == Interval(0.5, None, None, 1)


def test_groups_are_drawn_whole_and_large_ones_count_for_more() -> None:
    groups = [[1.0] * 6, *([0.0] for _ in range(6))]
    found = clustered_interval(groups, seed=0)
    assert found is not None and (found.mean, found.n) == (0.5, 7)
    assert found.low == 0.0, "the large one is not drawn in a third of the samples"
    assert clustered_interval([[0.5, 0.7], []], seed=0) == Interval(0.6, None, None, 1)
    assert clustered_interval([], seed=0) is None


def test_groups_of_one_are_values() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.5, 0.7]
    found, alone = (
        clustered_interval([[value] for value in values], seed=0),
        mean_interval(values, seed=0),
    )
    assert found is not None and alone is not None
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_a_context_that_lacks_a_score_on_one_side_drops_out_on_both() -> None:
    scores = {"a": 1.0, "b": 0.5, "c": None, "d": 0.25, "e": 1.0}
    reference = {"a": 0.5, "b": None, "c": 0.5, "d": 0.25, "f": 0.0}
    assert paired_differences(scores, reference) == {"a": 0.5, "d": 0.0}


def test_a_query_that_lacks_a_score_on_one_side_drops_out_on_both() -> None:
    scores = {"a": {"1": 1.0, "2": None, "3": 0.0}, "b": {"1": None}, "c": {"1": 1.0}}
    reference = {"a": {"1": 0.5, "2": 0.0, "3": 0.0}, "b": {"1": 1.0}, "d": {"1": 1.0}}
    assert paired_by_context(scores, reference) == {"a": 0.25}


@given(values=VALUES, seed=st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=60)
def test_the_interval_holds_the_mean_and_lies_within_the_values(
    values: list[float], seed: int
) -> None:
    interval = mean_interval(values, seed=seed, resamples=FEW)
    assert interval is not None
    if interval.low is None or interval.high is None:
        assert len(values) == 1
        return
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert interval.low <= interval.mean <= interval.high
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


@given(values=VALUES, data=st.data())
@settings(deadline=None, max_examples=40)
def test_the_same_values_and_seed_give_the_same_interval_in_any_order(
    values: list[float], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(values))
    assert mean_interval(shuffled, seed=3, resamples=FEW) == mean_interval(
        values, seed=3, resamples=FEW
    )


def test_the_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, size=400)
    interval = mean_interval(values.tolist(), seed=1)
    assert interval is not None
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert interval.low == pytest.approx(interval.mean - half, abs=0.1 * half)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.1 * half)


@pytest.mark.parametrize("size", [LEAST_FOR_A_VERDICT, 8, 16, 40])
def test_about_95_of_100_intervals_hold_the_true_mean(size: int) -> None:
    draws = np.random.default_rng(2).normal(0.0, 1.0, size=(400, size))
    intervals = [mean_interval(row.tolist(), seed=4, resamples=2000) for row in draws]
    assert 0.92 <= sum(map(holds_zero, intervals)) / 400 <= 0.98


def test_six_values_have_the_half_width_that_students_t_gives_them() -> None:
    values = np.array([-2.0, -0.5, -0.2, 0.2, 0.5, 2.0])
    interval = mean_interval(values.tolist(), seed=4)
    assert interval is not None and interval.low is not None and interval.high is not None
    half = 2.5706 * float(values.std(ddof=1)) / math.sqrt(6)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.05)


def test_the_interval_of_a_share_is_wilsons() -> None:
    interval = success_interval([1.0] * 8 + [0.0] * 2 + [None])
    assert interval is not None and (interval.mean, interval.n) == (0.8, 10)
    assert interval.low == pytest.approx(0.490, abs=0.001)
    assert interval.high == pytest.approx(0.943, abs=0.001)


def holds_zero(interval: Interval | None) -> bool:
    assert interval is not None and interval.low is not None and interval.high is not None
    return interval.low <= 0.0 <= interval.high


def test_pairing_shows_a_small_gain_that_the_spread_of_contexts_would_hide() -> None:
    levels = np.random.default_rng(5).uniform(0, 1, size=50)
    before = {f"c{index}": float(level) for index, level in enumerate(levels)}
    after = {
        name: level + (0.06 if index % 2 else 0.02)
        for index, (name, level) in enumerate(before.items())
    }
    paired = mean_interval(paired_differences(after, before).values(), seed=0)
    alone = mean_interval(after.values(), seed=0)
    assert paired is not None
    assert alone is not None
    assert paired.low is not None
    assert alone.low is not None
    assert paired.low > 0
    assert alone.low < float(levels.mean())


def test_memory_stays_bounded_and_blocks_do_not_show_in_the_number_of_resamples() -> None:
    interval = mean_interval([float(index % 2) for index in range(60_000)], seed=0, resamples=300)
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    assert 0.49 < interval.low < 0.5 < interval.high < 0.51


def test_gains_are_counted_by_sign_and_missing_ones_not_at_all() -> None:
    assert pass_counts([0.1, 1e-12, 0.0, -0.5, None, math.nan]) == PassCounts(
        improved=1, unchanged=2, worsened=1
    )


@pytest.mark.parametrize(
    "rewards",
    [
        [],
        [[[0.1, 0.2, 0.3]]],
        [[[0.1], [0.2], [0.3]]],
        [[[0.5, 0.5], [0.5, 0.5]]],
        [[[None, 0.1], [math.nan, 0.2]]],
        [[[0.1, 0.3]], [[0.5, 0.7]]],
    ],
    ids=[
        "nothing",
        "one candidate",
        "no repeats",
        "no spread",
        "repeats missing",
        "one candidate in each context",
    ],
)
def test_reliability_that_is_not_defined_is_missing(
    rewards: list[list[list[float | None]]],
) -> None:
    assert reliability(rewards, repeats=3) is None


def test_reliability_is_the_one_way_intraclass_correlation() -> None:
    """Six targets, four judges.

    Shrout and Fleiss (1979), table 2, give ICC(1,1) = .17 and ICC(1,4) = .44.
    """
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = reliability([[[float(score) for score in target] for target in ratings]], repeats=4)
    assert found is not None
    assert found.single == pytest.approx(0.17, abs=0.005)
    assert found.averaged == pytest.approx(0.44, abs=0.005)
    assert (found.repeats, found.candidates) == (4, 6)


def test_a_context_of_unequal_repeats_counts_by_those_that_it_has_on_average() -> None:
    """Three repeats and one: 4 - (9 + 1) / 4 of them, squares 12 between and 2 / 2 within."""
    found = reliability([[[1.0, 2.0, 3.0], [6.0]]], repeats=3)
    assert found is not None
    assert found.single == pytest.approx((12 - 1) / (12 + 0.5))


def test_what_differs_between_contexts_is_not_reliability() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, size=(200, 4, 3))
    contexts = np.arange(200.0)[:, None, None]
    found = reliability((contexts + noise).tolist(), repeats=3)
    assert found is not None
    assert abs(found.single) < 0.08


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_reliability_recovers_a_known_share_of_noise_with_and_without_missing_repeats(
    missing: float,
) -> None:
    generator = np.random.default_rng(1)
    true = generator.normal(0, 1, size=(300, 5, 1))
    scores = true + generator.normal(0, 2, size=(300, 5, 3))
    scores[generator.random(scores.shape) < missing] = np.nan
    found = reliability(scores.tolist(), repeats=3)
    assert found is not None
    assert found.single == pytest.approx(0.2, abs=0.05)


def test_repeats_raise_reliability_as_measured_for_the_published_rewards() -> None:
    assert spearman_brown(0.16, 3) == pytest.approx(0.37, abs=0.01)
    assert spearman_brown(0.5, 1) == 0.5
    assert spearman_brown(-0.4, 3) == 0.0


def test_diversity_is_the_mean_share_of_words_that_two_edits_do_not_share() -> None:
    assert diversity(["It is long.", "it  is long"]) == 0.0
    assert diversity(["it is", "was there"]) == 1.0
    assert diversity(["one two", "two three", "one two"]) == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


@pytest.mark.parametrize("edits", [[], ["one"]])
def test_fewer_than_two_edits_have_no_diversity(edits: list[str]) -> None:
    assert diversity(edits) is None


@given(st.lists(st.text(max_size=20), min_size=2, max_size=5))
@settings(deadline=None)
def test_diversity_is_between_0_and_1_in_any_order(edits: list[str]) -> None:
    found = diversity(edits)
    assert found is not None
    assert 0.0 <= found <= 1.0
    assert found == diversity(edits[::-1])


def test_what_a_run_has_in_common_for_all_contexts_widens_the_interval_over_runs() -> None:
    contexts = [f"c{n}" for n in range(40)]
    runs = [dict.fromkeys(contexts, level) for level in (0.0, 0.1, 0.2)]
    crossed = crossed_interval(runs, seed=0)
    over_contexts = mean_interval([0.1] * 40, seed=0)
    assert crossed is not None and over_contexts is not None
    assert (over_contexts.low, over_contexts.high) == (0.1, 0.1)
    assert crossed.mean == pytest.approx(0.1)
    assert crossed.low == pytest.approx(0.0) and crossed.high == pytest.approx(0.2)


def test_runs_that_agree_leave_the_interval_over_contexts() -> None:
    values = np.random.default_rng(1).normal(size=50)
    run = {f"c{n}": float(value) for n, value in enumerate(values)}
    crossed, plain = crossed_interval([run] * 3, seed=0), mean_interval(values, seed=0)
    assert crossed is not None and plain is not None
    assert crossed.low == pytest.approx(plain.low, abs=0.03)
    assert crossed.high == pytest.approx(plain.high, abs=0.03)


def test_a_context_that_lacks_a_run_has_no_place_in_the_interval_over_runs() -> None:
    interval = crossed_interval([{"a": 1.0, "b": 0.0, "c": 9.0}, {"a": 0.0, "b": 1.0}], seed=0)
    assert interval is not None and (interval.mean, interval.n) == (0.5, 2)
    assert crossed_interval([{"a": 1.0}, {"b": 1.0}], seed=0) is None
    assert crossed_interval([], seed=0) is None
    assert crossed_interval([{"a": 1.0, "b": 2.0}], seed=0) == Interval(1.5, None, None, 2)
