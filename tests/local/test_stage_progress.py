"""How long an adaptation is said to take still."""

from __future__ import annotations

import pytest
from synthetic_adaptation import adaptation_spec

from controller_svc.core import Phase, RunStatus, StageStatus
from controller_svc.local.stage_progress import StageProgress
from controller_svc.worker.progress import TaskProgress
from seal.records import Stage


def at(stage: Stage, *, shards: int = 1, completed: str = "") -> RunStatus:
    """An adaptation in one of its stages."""
    current = StageStatus(name=stage, stage=stage, round=0, shards=shards, completed=completed)
    return RunStatus(run="demo", spec_sha256="d", phase=Phase.RUNNING, stage=stage, current=current)


class Followed:
    """A progress whose tasks expect what the test says."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._stage = Stage.PREPARE
        spec = adaptation_spec(self_made=False)
        self.progress = StageProgress(spec, clock=lambda: self._seconds)

    def enter(self, stage: Stage) -> float | None:
        """A stage begins; the seconds left."""
        self._stage = stage
        return self.progress.enter(at(stage)).eta_seconds

    def reach(self, share: float, *, expected: float | None) -> float | None:
        """A share of the stage is done, and its task expects so many seconds; those left in all."""
        self._seconds += 60.0
        task = TaskProgress(
            name="t",
            stage=self._stage,
            round=0,
            shard=0,
            trainings_total=1,
            training_fraction=share,
            eta_seconds=expected,
        )
        told = self.progress.update(task)
        assert told is not None
        return told.eta_seconds


def test_a_slower_stage_is_waited_for_at_its_own_pace() -> None:
    followed = Followed()
    assert followed.enter(Stage.ROLLOUT) is None
    assert followed.reach(0.0, expected=None) is None
    # 0.55 of the whole, of which 0.6 follow: as much again and a little more
    assert followed.reach(0.5, expected=27.5) == pytest.approx(27.5 + 60.0)
    assert followed.reach(1.0, expected=0.0) == pytest.approx(60.0)
    assert followed.enter(Stage.ADAPT) == pytest.approx(60.0), "as fast as the one before"
    assert followed.reach(0.5, expected=600.0) == pytest.approx(600.0)
    assert followed.reach(0.75, expected=300.0) == pytest.approx(300.0)


def test_what_an_earlier_process_did_says_nothing_of_the_pace() -> None:
    followed = Followed()
    followed.enter(Stage.ROLLOUT)
    assert followed.reach(0.8, expected=None) is None
    assert followed.reach(0.9, expected=5.5) == pytest.approx(5.5 + 60.0)


def test_shards_that_an_earlier_process_finished_count_although_they_tell_nothing() -> None:
    progress = Followed().progress
    begun = progress.enter(at(Stage.ROLLOUT, shards=4)).percent
    done = progress.enter(at(Stage.ROLLOUT, shards=4, completed="0-2")).percent
    whole = Followed().progress.enter(at(Stage.ADAPT)).percent
    assert done - begun == pytest.approx(0.75 * (whole - begun))
