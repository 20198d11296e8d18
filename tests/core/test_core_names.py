"""Names of tasks: deterministic, DNS labels, at most 63 characters, one for each intent."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from controller_svc.core import task_name
from controller_svc.core.names import MAX_NAME_CHARACTERS, shorten

RUNS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")
STAGES = st.sampled_from(["rollout", "improve", "validate"])
INTENTS = st.tuples(
    RUNS, st.integers(0, 10**9), STAGES, st.none() | st.integers(0, 10**6), st.integers(1, 10**4)
)


def name_of(intent: tuple[str, int, str, int | None, int]) -> str:
    run, round, stage, shard, attempt = intent
    return task_name(run=run, round=round, stage=stage, shard=shard, attempt=attempt)


def test_a_name_tells_run_round_stage_shard_and_attempt() -> None:
    assert (
        task_name(run="demo", round=1, stage="rollout", shard=3, attempt=2)
        == "demo-r1-rollout-3-a2"
    )


def test_a_stage_that_is_not_cut_has_no_shard_in_its_name() -> None:
    assert task_name(run="demo", round=2, stage="improve", attempt=1) == "demo-r2-improve-a1"


def test_a_name_that_is_too_long_ends_in_a_hash_of_the_whole() -> None:
    first, second = (shorten("x" * 70 + end) for end in ("a", "b"))
    assert first[:54] == second[:54] == "x" * 54
    assert first != second
    assert re.fullmatch(r"x{54}-[0-9a-f]{8}", first)


def test_a_name_is_not_cut_just_behind_a_dash() -> None:
    assert "--" not in shorten("x" * 53 + "-" + "y" * 20)


@given(INTENTS)
def test_every_name_is_a_dns_label(intent: tuple[str, int, str, int | None, int]) -> None:
    name = name_of(intent)
    assert len(name) <= MAX_NAME_CHARACTERS
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


@given(
    RUNS,
    st.lists(
        st.tuples(st.integers(0, 99), STAGES, st.integers(0, 999), st.integers(1, 9)), unique=True
    ),
)
def test_two_tasks_of_one_run_never_share_a_name(
    run: str, tasks: list[tuple[int, str, int, int]]
) -> None:
    names = {
        task_name(run=run, round=round, stage=stage, shard=shard, attempt=attempt)
        for round, stage, shard, attempt in tasks
    }
    assert len(names) == len(tasks)
