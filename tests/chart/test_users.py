"""Whom the processes of all pods run as: the image's user, yours, or whom the cluster chooses."""

from __future__ import annotations

from typing import Any

import pytest
from chart import jobs_file, pods, render
from test_chart import OPENSHIFT, S3, VOLUME
from test_on_a_server import job

from controller_svc.k8s.jobs import JobSettings, PodUsers
from seal.records import Stage

IMAGES_OWN = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
"""As the Dockerfile makes it."""


def users(*values: str) -> list[dict[str, Any]]:
    """Of every pod of a release and of its Jobs: what is said about whom it runs as."""
    made = render(VOLUME, *values)
    settings = JobSettings.model_validate(jobs_file(made))
    specs = [pod["spec"] for pod in pods(made).values()]
    specs += [one["spec"] for one in made if one["kind"] == "Pod"]
    specs += [job(stage, settings)["spec"]["template"]["spec"] for stage in Stage]
    everybody = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert all(everybody.items() <= one["securityContext"].items() for one in specs)
    return [
        {name: value for name, value in one["securityContext"].items() if name not in everybody}
        for one in specs
    ]


def test_by_default_every_pod_runs_as_the_images_user() -> None:
    found = users()
    assert all(one == IMAGES_OWN | {"fsGroupChangePolicy": "OnRootMismatch"} for one in found)
    default = PodUsers().model_dump(mode="json", exclude_none=True)
    assert default == found[0], "a controller without a chart makes other Jobs"


def test_on_openshift_no_pod_names_a_user_or_a_group() -> None:
    assert all(one == {"fsGroupChangePolicy": "OnRootMismatch"} for one in users(OPENSHIFT))


@pytest.mark.parametrize("store", [(), S3], ids=["volume", "bucket"])
def test_one_field_of_yours_leaves_the_others(store: tuple[str, ...]) -> None:
    large = 1_000_660_000  # templates would write it as a power of ten
    found = users(*store, f"--set=podSecurityContext.fsGroup={large}")
    wanted = IMAGES_OWN | {"fsGroup": large, "fsGroupChangePolicy": "OnRootMismatch"}
    assert all(one == wanted for one in found)
