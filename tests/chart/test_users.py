"""Whom the processes of all pods run as: the image's user, yours, or whom the cluster chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import jobs_file, pods, render
from test_chart import OPENSHIFT, S3, VOLUME
from test_on_a_server import job

from controller_svc.k8s.job_settings import IMAGES_USER
from controller_svc.k8s.options import ControllerOptions
from seal.records import Stage

IMAGES_OWN = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
"""As the Dockerfile makes it."""
ON_MISMATCH = {"fsGroupChangePolicy": "OnRootMismatch"}
Users = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def users(tmp_path: Path) -> Users:
    """By values: what is said of each pod of a release and of its Jobs about whom it runs as."""

    def told(*values: str) -> list[dict[str, Any]]:
        made = render(VOLUME, *values)
        file = tmp_path / "jobs.yaml"
        file.write_text(yaml.safe_dump(jobs_file(made)))
        options = ControllerOptions.parse(["--jobs-file", str(file), "--artifacts", str(tmp_path)])
        specs = [pod["spec"] for pod in pods(made).values()]
        specs += [one["spec"] for one in made if one["kind"] == "Pod"]
        specs += [job(stage, options.jobs())["spec"]["template"]["spec"] for stage in Stage]
        everybody = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        said = [one["securityContext"] for one in specs]
        assert all(everybody.items() <= one.items() for one in said)
        return [{name: one[name] for name in one.keys() - everybody.keys()} for one in said]

    return told


def test_by_default_every_pod_runs_as_the_images_user(users: Users) -> None:
    found = users()
    assert all(one == IMAGES_OWN | ON_MISMATCH for one in found)
    assert IMAGES_USER.model_dump(mode="json") == found[0], "without a chart Jobs are others"


def test_on_openshift_no_pod_names_a_user_or_a_group(users: Users) -> None:
    assert all(one == ON_MISMATCH for one in users(OPENSHIFT))


def test_everything_may_be_left_to_the_cluster(users: Users) -> None:
    fields = ("runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy")
    left = [f"--set=podSecurityContext.{field}=null" for field in fields]
    assert all(one == {} for one in users(*left))


@pytest.mark.parametrize("store", [(), S3], ids=["volume", "bucket"])
def test_one_field_of_yours_leaves_the_others(store: tuple[str, ...], users: Users) -> None:
    large = 1_000_660_000  # templates would write it as a power of ten
    found = users(*store, f"--set=podSecurityContext.fsGroup={large}")
    assert all(one == IMAGES_OWN | ON_MISMATCH | {"fsGroup": large} for one in found)
