"""Killed at any moment and started again, a run ends as if nothing had happened.

No finished inner loop runs twice.

Real processes with SIGKILL at chosen moments; `tests/crash` tries every side effect in one process.
The scenes take their services from a factory, so the same tests hold for fakes and for a real
engine (`resume_harness`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import IMPATIENT, small_spec
from resume_harness import KillPoint, Scene

from controller_svc.worker.settings import WorkerSettings
from seal.settings import RunSpec

FEW = WorkerSettings.model_validate(
    IMPATIENT.model_dump() | {"concurrency": 2, "contexts_per_request": 2}
)
"""Little at once, so that a kill falls between pieces of work."""


def scene(directory: Path, spec: RunSpec | None = None) -> Scene:
    """A fresh directory and a run of two rounds in it."""
    data = directory.parent / "data"
    data.mkdir(exist_ok=True)
    directory.mkdir()
    return Scene(spec=spec or small_spec(data, shards=2), directory=directory, settings=FEW)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A run that nothing disturbs, in a process of its own."""
    undisturbed = scene(tmp_path_factory.mktemp("calm") / "scene")
    assert undisturbed.run_child(resume=False) == 0
    assert len(undisturbed.executed()) == len(set(undisturbed.executed()))
    return undisturbed


MOMENTS = {
    "while edits are written": KillPoint(
        nth=1, when="during", effect="generate", match="r1/rollout"
    ),
    "in a rollout, before an inner loop is committed": KillPoint(
        nth=5, when="before", effect="write", match="r1-rollout/shard-0001/inner"
    ),
    "in a rollout, after an inner loop is committed": KillPoint(
        nth=9, when="after", effect="write", match="r1-rollout/shard-0000/inner"
    ),
    "the selection made": KillPoint(
        nth=1, when="after", effect="write", match="r1-improve/selection"
    ),
    "in an M-step": KillPoint(nth=2, when="during", effect="train", match="r1/improve"),
    "an M-step ended, its policy not recorded": KillPoint(
        nth=1, when="after", effect="train", match="r2/improve"
    ),
    "in a validation": KillPoint(nth=3, when="during", effect="evaluate", match="r1/validate/edit"),
    "in the last validation": KillPoint(
        nth=3, when="before", effect="write", match="r2-validate/shard-0001/inner"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_an_undisturbed_one_and_no_finished_inner_loop_runs_twice(
    calm: Scene, tmp_path: Path, moment: str
) -> None:
    killed = Scene(spec=calm.spec, directory=tmp_path, settings=FEW)
    assert killed.run_child(resume=False, point=MOMENTS[moment]) == -9
    finished, executed = killed.finished_loops(), killed.executed()
    assert killed.run_child(resume=True) == 0
    assert killed.final() == calm.final()
    again = {name for _, name in killed.executed()[len(executed) :]}
    assert again.isdisjoint(finished), "a finished inner loop was trained again"
    assert len(killed.executed()) - len(calm.executed()) <= FEW.concurrency * killed.spec.shards
    assert killed.leftovers() == []


def test_a_run_that_is_killed_again_and_again_ends_all_the_same(
    calm: Scene, tmp_path: Path
) -> None:
    killed = Scene(spec=calm.spec, directory=tmp_path, settings=FEW)
    kills, finished = 0, 0
    while killed.run_child(resume=kills > 0, point=KillPoint(nth=45 + 5 * kills)) == -9:
        kills += 1
        assert len(killed.finished_loops()) > finished, "every process gets on"
        finished = len(killed.finished_loops())
    assert kills >= 3
    assert killed.final() == calm.final()
    assert (
        len(killed.executed())
        <= len(calm.executed()) + kills * FEW.concurrency * killed.spec.shards
    )
