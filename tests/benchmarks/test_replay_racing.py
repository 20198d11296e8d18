"""The replay of selection policies.

Unbiased where it measures, right where it simulates, on logs made here.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from benchmarks.racing.figures import replay_log
from benchmarks.racing.policies import (
    Components,
    Policy,
    Simulation,
    Squares,
    choose,
    replay,
    resamples,
)
from benchmarks.racing.seal_log import SealLog, Verdict, count_judge_calls, read_log
from seal.errors import InvalidInput, NotFound
from seal.restem.statistics import reliability

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS = 4
BEST_OF_FIVE = 1.1629644736
"""Expected largest of five standard normal draws."""
EVERY = [Policy(5, 1), Policy(5, 2), Policy(5, 2, (2,))]


def verdict(
    rep: int, question: str, right: bool, *, adapter: str = "", baseline: str = "no idea"
) -> dict[str, object]:
    return {
        "rep": rep,
        "question": question,
        "answer": "gold",
        "baseline_answer": baseline,
        "adapter_answer": adapter or ("Gold." if right else f"wrong {rep}"),
        "baseline_correct": False,
        "adapter_correct": right,
    }


def write_log(path: Path, right: Sequence[Sequence[Sequence[int]]]) -> Path:
    """A log in SEAL's format: right answers of four, by passage, candidate and repeat."""
    articles = [
        {
            "title": f"Passage {p}",
            "completions": [
                {
                    "text": "An edit.",
                    "stats": {"ignored": True},
                    "questions": [
                        verdict(rep, f"{p}/{q}?", q < n)
                        for rep, n in enumerate(repeats)
                        for q in range(QUESTIONS)
                    ],
                }
                for repeats in candidates
            ],
        }
        for p, candidates in enumerate(right)
    ]
    path.write_text(json.dumps({"n_articles": len(articles), "articles": articles}))
    return path


def random_log(path: Path, *, passages: int = 12) -> Path:
    return write_log(
        path, np.random.default_rng(3).integers(0, QUESTIONS + 1, size=(passages, 5, 3)).tolist()
    )


def test_a_log_is_read_as_shares_of_right_answers(tmp_path: Path) -> None:
    right = [[[0, 1, 4], [2, 2, 2]], [[4, 4, 4], [3, 0, 1]]]
    log = read_log(write_log(tmp_path / "log.json", right))
    assert log.rewards_P_C_R.tolist() == (np.array(right) / QUESTIONS).tolist()
    assert (log.baseline_P.tolist(), len(log.verdicts)) == ([0.0, 0.0], 2 * 2 * 3 * QUESTIONS)


@pytest.mark.parametrize(
    ("right", "problem"),
    [
        ([[[1, 1], [1]], [[1, 1], [1, 1]]], r"repeats \[\(0,\), \(0, 1\)\]"),
        ([[[1], [1]], [[1], [1], [1]]], r"\[2, 3\] edits"),
    ],
    ids=["a repeat missing", "an edit missing"],
)
def test_a_log_with_holes_is_refused_instead_of_being_filled(
    tmp_path: Path, right: list[list[list[int]]], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_log(write_log(tmp_path / "log.json", right))


def test_another_file_is_refused_by_field_and_a_missing_one_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"articles": [{"title": "x"}, {"title": "y"}]}')
    with pytest.raises(InvalidInput, match=r"articles\.0\.completions: Field required"):
        read_log(other)
    with pytest.raises(NotFound, match="absent"):
        read_log(tmp_path / "absent.json")


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_without_noise_every_policy_finds_the_best_edit(policy: Policy) -> None:
    true_P_C = np.random.default_rng(0).random((6, 5))
    rewards_P_C_R = np.repeat(true_P_C[:, :, None], 3, axis=2)
    assert replay(rewards_P_C_R, policy) == pytest.approx(true_P_C.max(axis=1))


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_where_there_is_only_noise_nothing_is_gained_though_the_chosen_edit_looked_better(
    policy: Policy,
) -> None:
    rewards_P_C_R = np.random.default_rng(1).standard_normal((100, 5, 3))
    gain_P = replay(rewards_P_C_R, policy) - rewards_P_C_R.mean(axis=(1, 2))
    seen = np.mean(
        [rewards_C_R[choose(rewards_C_R, policy, range(5)), 0] for rewards_C_R in rewards_P_C_R]
    )
    assert abs(gain_P.mean()) < 4 * gain_P.std() / math.sqrt(100)
    assert seen > 0.7


def test_ties_are_broken_at_random_and_every_order_of_the_repeats_counts() -> None:
    rewards_P_C_R = np.array(
        [[[1.0, 0.0, 0.5], [1.0, 0.25, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    )
    expected = []
    for first, _, held_out in permutations(range(3)):
        best = np.flatnonzero(rewards_P_C_R[0, :, first] == rewards_P_C_R[0, :, first].max())
        expected.append(rewards_P_C_R[0, best, held_out].mean())
    assert replay(rewards_P_C_R, Policy(5, 1)) == pytest.approx([np.mean(expected)])


def test_no_policy_may_see_the_held_out_repeat() -> None:
    with pytest.raises(ValueError, match="5 x 3 cannot be replayed on 5 candidates with 3 repeats"):
        replay(np.zeros((2, 5, 3)), Policy(5, 3))


@pytest.mark.parametrize(
    ("policy", "loops"), [(Policy(5, 3), 15), (Policy(5, 2, (2,)), 7), (Policy(10, 3, (3, 2)), 15)]
)
def test_a_policy_counts_its_inner_loops(policy: Policy, loops: int) -> None:
    assert policy.inner_loops == loops


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_simulated_gain_is_that_of_order_statistics(repeats: int) -> None:
    found = Simulation(contexts=40_000, candidates=5, repeats=3, seed=0).gain(
        Policy(5, repeats), Components(candidate=0.2, noise=0.8)
    )
    assert found == pytest.approx(BEST_OF_FIVE * 0.2 / math.sqrt(0.2 + 0.8 / repeats), rel=0.03)


@pytest.mark.parametrize(
    "policy", [*EVERY, Policy(10, 3, (3, 2)), Policy(10, 3, (3, 1))], ids=lambda policy: policy.name
)
def test_the_simulated_race_is_run_by_the_rules_of_the_worker(policy: Policy) -> None:
    simulation = Simulation(contexts=200, candidates=10, repeats=3, seed=4)
    true_N_C = simulation._candidate_N_C[:, : policy.candidates]
    rewards_N_C_R = true_N_C[:, :, None] + simulation._noise_N_C_R[:, : policy.candidates]
    chosen = [
        choose(rewards_C_R, policy, range(policy.candidates)) for rewards_C_R in rewards_N_C_R
    ]
    expected = np.mean([true_C[winner] for true_C, winner in zip(true_N_C, chosen, strict=True)])
    assert simulation.gain(policy, Components(candidate=1.0, noise=1.0)) == pytest.approx(expected)


def test_gains_read_off_the_curve_are_those_simulated_one_by_one() -> None:
    simulation = Simulation(contexts=20_000, candidates=10, repeats=3, seed=2)
    components = [
        Components(candidate=c, noise=n)
        for c, n in [(0.01, 0.03), (0.002, 0.03), (-0.01, 0.03), (0.03, 0.01)]
    ]
    for policy in (Policy(5, 3), Policy(10, 3, (3, 2))):
        one_by_one = [simulation.gain(policy, each) for each in components]
        assert simulation.gains(policy, components).tolist() == pytest.approx(
            one_by_one, rel=0.03, abs=3e-4
        )


def test_reliability_across_repeats_is_that_of_the_report_and_common_luck_is_noise_only_there() -> (
    None
):
    generator = np.random.default_rng(5)
    candidate = 0.5 * generator.standard_normal((400, 5, 1))
    rewards_P_C_R = (
        candidate
        + generator.standard_normal((400, 5, 3))
        + 2 * generator.standard_normal((400, 1, 3))
    )
    squares = Squares.of(rewards_P_C_R)
    expected = reliability(rewards_P_C_R.tolist(), repeats=3)
    assert expected is not None
    across, within = squares.components(same_repeat=False), squares.components()
    assert across.candidate / (across.candidate + across.noise) == pytest.approx(expected.single)
    assert within.reliability == pytest.approx(0.25 / 1.25, abs=0.04)
    assert squares.shared_noise() == pytest.approx(4 / 5, abs=0.03)
    every = np.arange(400, dtype=np.int64)
    assert squares.components(every) == within and squares.components(every[:200]) != within


def test_the_judge_cache_counts_each_question_gold_and_normalised_answer_once() -> None:
    rows = [
        verdict(0, "a?", True, adapter="Gold"),
        verdict(1, "a?", True, adapter="the gold."),
        verdict(2, "a?", False, adapter="no idea"),
        verdict(0, "b?", True, adapter="Gold"),
        verdict(1, "b?", False, adapter="gold!"),
    ]
    calls = count_judge_calls(tuple(Verdict.model_validate(row) for row in rows))
    assert (calls.adapter, calls.baseline, calls.baseline_once) == (5, 5, 2)
    assert (calls.adapter_distinct, calls.all_distinct, calls.contradictions) == (3, 4, 1)
    assert (calls.saved_as_logged, calls.saved_baseline_once, calls.saved_adapter) == pytest.approx(
        (6 / 10, 3 / 7, 2 / 5)
    )


def test_all_figures_of_a_log_carry_what_they_are(tmp_path: Path) -> None:
    found = replay_log(
        read_log(random_log(tmp_path / "log.json")),
        command="test",
        seed=0,
        number=200,
        contexts=500,
    )
    assert [each.policy for each in found.policies] == [
        "5 x 1",
        "5 x 2",
        "5 -> 2",
        "5 x 3",
        "10 -> 3 -> 2",
        "15 x 1",
    ]
    assert [each.gain is None for each in found.policies] == [False] * 3 + [True] * 3, (
        "no repeat is left to measure those"
    )
    for each in found.policies:
        for value in (each.gain, each.over_baseline, each.simulated_gain):
            assert value is None or value.low <= value.value <= value.high
    assert {(each.policy, each.over) for each in found.comparisons if not each.simulated} == {
        ("5 -> 2", "5 x 2"),
        ("5 -> 2", "5 x 1"),
    }
    gains = {each.policy: each.gain for each in found.policies}
    race, twice = gains["5 -> 2"], gains["5 x 2"]
    assert race is not None and twice is not None
    assert found.comparisons[0].difference.value == pytest.approx(race.value - twice.value)


def test_a_log_with_one_repeat_is_refused(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "log.json", [[[1], [2]], [[3], [4]]]))
    with pytest.raises(InvalidInput, match="none can be held out"):
        replay_log(log, command="", seed=0, number=100, contexts=100)


def test_resamples_draw_whole_passages_with_replacement() -> None:
    picked = resamples(7, number=50, seed=1)
    assert picked.shape == (50, 7) and set(picked.ravel().tolist()) == set(range(7))
    assert (picked == resamples(7, number=50, seed=1)).all()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.racing.replay", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_json_for_programs_and_a_table_for_people(tmp_path: Path) -> None:
    path = str(random_log(tmp_path / "log.json"))
    small = ("--resamples", "100", "--contexts", "200")
    as_json = command(path, "--output", "json", *small)
    found = json.loads(as_json.stdout)
    assert (found["log"]["passages"], found["log"]["repeats"], len(found["policies"])) == (12, 3, 6)
    assert found["command"].startswith(f"python -m benchmarks.racing.replay {path} --output json")
    table = command(path, *small)
    assert table.returncode == as_json.returncode == 0
    assert all(
        word in table.stdout
        for word in (
            "10 -> 3 -> 2",
            "simulated",
            "measured",
            "Judge cache",
            "within the same repeats",
        )
    )


def test_the_command_refuses_a_missing_file_in_one_line(tmp_path: Path) -> None:
    ended = command(str(tmp_path / "absent.json"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr.startswith("error: ")
        and "absent.json does not exist; check the path" in ended.stderr
    )


def test_of_two_repeats_only_one_can_be_seen_and_no_race_be_replayed() -> None:
    rewards = np.random.default_rng(0).random((4, 3, 2))
    log = SealLog(
        sha256="",
        rewards_P_C_R=rewards,
        baseline_P=np.zeros(4),
        verdicts=(Verdict.model_validate(verdict(0, "a?", True)),),
    )
    found = replay_log(log, command="", seed=0, number=100, contexts=200)
    assert [each.policy for each in found.policies if each.gain] == ["3 x 1"]
