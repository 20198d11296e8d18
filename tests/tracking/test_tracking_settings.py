"""What a run says of its tracker decides no number of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import RUN, small_spec

from controller_svc.core import spec_digest
from controller_svc.runs import check_same_spec
from seal.errors import Conflict
from seal.resources import RestEMRun
from seal.settings import RunSpec, TrackingSettings


def tracked(spec: RunSpec, **tracking: object) -> RunSpec:
    return spec.model_copy(update={"tracking": TrackingSettings.model_validate(tracking)})


def test_a_spec_has_the_digest_that_it_had_without_a_tracker(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    assert spec_digest(tracked(spec, to="mlflow", experiment="mine")) == spec_digest(spec)
    assert spec_digest(spec.model_copy(update={"seed": 7})) != spec_digest(spec)


def test_a_resume_may_change_the_tracker_and_nothing_that_decides_numbers(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    saved = RestEMRun.of(RUN, spec)
    for changes in ({"to": "wandb"}, {"experiment": "other"}, {"adapter": False}):
        check_same_spec(saved, RestEMRun.of(RUN, tracked(spec, **changes)))
    other = tracked(spec.model_copy(update={"seed": 7}), to="mlflow")
    with pytest.raises(Conflict, match=r"spec\.seed"):
        check_same_spec(saved, RestEMRun.of(RUN, other))


@pytest.mark.parametrize("name", ["team/seal", "a:b", "100%", ""])
def test_a_project_that_wandb_refuses_is_refused_before_the_run_by_its_field(name: str) -> None:
    with pytest.raises(ValueError, match="experiment"):
        TrackingSettings.model_validate({"to": "wandb", "experiment": name})


def test_an_experiment_of_mlflow_may_be_a_path() -> None:
    assert TrackingSettings(to="mlflow", experiment="/Users/me/seal").experiment.startswith("/")
