"""benchmarks.preselection: what `inner.preselect` would have found, of runs that trained all."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import make_run

from benchmarks.preselection import Choice, choices, found
from seal.artifacts import ArtifactStore
from seal.report.numbers.source import read_run


def test_a_choice_is_set_against_chance_and_against_the_best() -> None:
    result = found(
        [Choice("a", 0.5, 0.4, 0.5), Choice("b", 0.1, 0.2, 0.3), Choice("b", 0.2, 0.2, 0.2)]
    )

    assert (result.rollouts, result.told_apart, result.best_found) == (3, 2, 0.5)
    assert result.gain and result.gain.mean == pytest.approx((0.1 - 0.05) / 2)
    assert result.room and result.room.mean == pytest.approx((0.1 + 0.05) / 2)
    assert (result.gain.n, result.room.n) == (2, 2), "passages"
    assert found([]).gain is None


def test_every_rollout_with_two_rewards_is_one_choice(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    run = read_run(store, make_run(store))

    made = list(choices(run))

    rollouts = [record for stage in run.named("rollout") for record in stage.records]
    assert 0 < len(made) <= len(rollouts)
    assert all(choice.chance <= choice.best for choice in made)
    assert all(choice.preselected <= choice.best for choice in made)
