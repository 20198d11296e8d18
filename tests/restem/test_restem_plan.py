"""Which contexts a round uses, and the seeds of what is random."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.errors import InvalidInput
from seal.restem.plan import plan_round
from seal.restem.seeds import derive_seed

IDS = tuple(f"c{index}" for index in range(10))


@pytest.mark.parametrize(
    ("ids", "round", "train_contexts", "field"),
    [
        ((), 1, 0, "data.train"),
        (("a", "b", "a"), 1, 0, "data.train"),
        (IDS, 0, 0, "round"),
        (IDS, 1, -1, "data.trainContexts"),
    ],
)
def test_a_round_that_cannot_be_planned_is_refused_by_field(
    ids: tuple[str, ...], round: int, train_contexts: int, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan_round(0, ids, round, train_contexts)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("train_contexts", [0, 10, 11])
def test_zero_or_more_than_there_are_takes_all_in_their_order(train_contexts: int) -> None:
    assert plan_round(7, IDS, 3, train_contexts) == IDS


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 12),
    take=st.integers(1, 12),
    rounds=st.integers(1, 9),
)
@settings(deadline=None)
def test_rounds_meet_all_contexts_equally_often_to_within_one(
    seed: int, size: int, take: int, rounds: int
) -> None:
    ids = tuple(f"c{index}" for index in range(size))
    plans = [plan_round(seed, ids, round, take) for round in range(1, rounds + 1)]
    met = Counter(context_id for plan in plans for context_id in plan)
    assert all(len(plan) == len(set(plan)) == min(take, size) for plan in plans)
    assert max(met.values()) - min(met[context_id] for context_id in ids) <= 1


@given(order=st.permutations(IDS), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_the_choice_depends_on_the_set_of_contexts_and_not_on_their_order(
    order: list[str], seed: int
) -> None:
    plan = plan_round(seed, order, 2, 4)
    assert set(plan) == set(plan_round(seed, IDS, 2, 4))
    assert list(plan) == [context_id for context_id in order if context_id in plan]


def test_another_seed_and_another_round_choose_other_contexts() -> None:
    assert len({plan_round(seed, IDS, 1, 4) for seed in range(20)}) > 10
    assert not set(plan_round(0, IDS, 1, 4)) & set(plan_round(0, IDS, 2, 4))


def test_a_seed_is_the_same_for_ever() -> None:
    assert derive_seed(0, "init", "loom-1a2b3c4d", 1) == 6045083428722349649


@given(parts=st.lists(st.one_of(st.text(), st.integers()), max_size=4))
@settings(deadline=None)
def test_a_seed_has_63_bits(parts: list[str | int]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


def test_parts_are_told_apart_by_type_and_by_place() -> None:
    seeds = [
        derive_seed(1),
        derive_seed("1"),
        derive_seed("a", "bc"),
        derive_seed("ab", "c"),
        derive_seed("abc"),
        derive_seed(),
        derive_seed(""),
    ]
    assert len(set(seeds)) == len(seeds)
