"""The operator's page names what there is: reasons, options, metrics, fields that may change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller_svc.core import Reason
from controller_svc.k8s.crds import MUTABLE
from controller_svc.k8s.looking import WaitReason
from controller_svc.k8s.options import ControllerOptions
from seal.metrics import metrics
from seal.options import ProcessOptions

PAGE = (Path(__file__).resolve().parents[2] / "docs/cluster.md").read_text()
ELSEWHERE = {Reason.RUN_FAILED, Reason.SUPERSEDED, Reason.CANCELLED, Reason.RESUMED}
"""What follows from another, or needs no words."""


@pytest.mark.parametrize("reason", [*WaitReason, *sorted(set(Reason) - ELSEWHERE)])
def test_each_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in PAGE


def test_each_option_of_the_controller_is_listed() -> None:
    own = set(ControllerOptions.model_fields) - set(ProcessOptions.model_fields) - {"http_address"}
    listed = {name.replace("_", "-") for name in own | {"artifacts"}}
    assert listed <= set(re.findall(r"`([-a-z]+)`", PAGE))


def test_each_metric_and_each_field_that_is_named_is_there() -> None:
    known = {family.name for family in metrics.registry.collect()}
    named = {name.removesuffix("_total") for name in re.findall(r"`(seal_\w+)", PAGE)}
    assert named and named <= known
    assert all(f"| `{field}` |" in PAGE for field in MUTABLE)
