"""Names of stages and ranges of shards."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_svc.core import format_ranges, parse_ranges
from seal.errors import Internal
from seal.names import MAX_NAME_CHARACTERS, shorten, stage_name

RUNS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")
STAGES = st.sampled_from(["prepare", "rollout", "improve", "validate"])
INTENTS = st.tuples(RUNS, st.integers(0, 10**9), STAGES, st.integers(1, 10**4))


def name_of(intent: tuple[str, int, str, int]) -> str:
    run, round, stage, attempt = intent
    return stage_name(run=run, round=round, stage=stage, attempt=attempt)


def test_a_name_tells_run_round_stage_and_attempt() -> None:
    assert stage_name(run="demo", round=1, stage="rollout", attempt=2) == "demo-r1-rollout-a2"


def test_a_name_that_is_too_long_ends_in_a_hash_of_the_whole() -> None:
    first, second = (shorten("x" * 70 + end) for end in ("a", "b"))
    assert first[:49] == second[:49] == "x" * 49
    assert first != second
    assert re.fullmatch(r"x{49}-[0-9a-f]{8}", first)


def test_a_name_is_not_cut_just_behind_a_dash() -> None:
    assert "--" not in shorten("x" * 48 + "-" + "y" * 20)


@given(INTENTS)
def test_every_name_is_a_dns_label_with_room_for_a_jobs_index(
    intent: tuple[str, int, str, int],
) -> None:
    name = name_of(intent)
    assert len(name) <= MAX_NAME_CHARACTERS == 58
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


@given(
    RUNS,
    st.lists(st.tuples(st.integers(0, 99), STAGES, st.integers(1, 9)), unique=True),
)
def test_two_stages_of_one_run_never_share_a_name(
    run: str, intents: list[tuple[int, str, int]]
) -> None:
    names = {
        stage_name(run=run, round=round, stage=stage, attempt=attempt)
        for round, stage, attempt in intents
    }
    assert len(names) == len(intents)


def test_ranges_are_written_as_an_indexed_job_writes_them() -> None:
    assert format_ranges([4, 0, 3, 5]) == "0,3-5"
    assert parse_ranges("0,3-5") == {0, 3, 4, 5}
    assert format_ranges([]) == "" and parse_ranges("") == frozenset()
    with pytest.raises(Internal):
        parse_ranges("0;1")


@given(st.frozensets(st.integers(0, 300)))
def test_ranges_are_read_back_as_they_were(indexes: frozenset[int]) -> None:
    assert parse_ranges(format_ranges(indexes)) == indexes
