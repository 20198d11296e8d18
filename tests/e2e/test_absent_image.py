"""A run whose Jobs have an image that nobody can pull says so, and goes on once it is put right."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from release import TINY, Release, until

from controller_svc.core import Phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

ABSENT = "localhost/absent:1"
NAME = "pictureless"


def set_jobs(settings: str, release: Release) -> None:
    """Have the controller make Jobs by other settings.

    In helm's name: helm 4 applies, and would refuse to change at the next upgrade what another one
    has written.
    """
    whole = release.get("configmap", "seal-controller")
    metadata = {name: whole["metadata"][name] for name in ("name", "labels", "annotations")}
    data = whole["data"] | {"jobs.yaml": settings}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    as_helm = ("--server-side", "--field-manager=helm", "--force-conflicts")
    release.kubectl("apply", *as_helm, "-f", "-", stdin=json.dumps(body))
    release.restart("controller")


def progressing(release: Release) -> dict[str, Any]:
    """The condition."""
    conditions: list[dict[str, Any]] = release.look(NAME).body["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Progressing")


def test_an_image_that_is_not_there_is_named_and_another_lets_the_run_go_on(
    release: Release,
) -> None:
    settings = str(release.get("configmap", "seal-controller")["data"]["jobs.yaml"])
    wrong = yaml.safe_load(settings)
    wrong["worker"]["image"] = ABSENT
    set_jobs(yaml.safe_dump(wrong), release)
    try:
        release.apply_run(NAME, **TINY)
        until(lambda: progressing(release)["reason"] == "ImageUnavailable")
        condition = progressing(release)
        assert condition["status"] == "False" and ABSENT in condition["message"]
        uid = release.look(NAME).body["metadata"]["uid"]
        events = release.get("events", "--field-selector", f"involvedObject.uid={uid}")["items"]
        assert [one["type"] for one in events if one["reason"] == "ImageUnavailable"] == ["Warning"]
    finally:
        set_jobs(settings, release)
    # A Job stays as it was made; in its place the controller makes one with the new settings
    release.kubectl("delete", "jobs", "-l", f"seal.dev/run={NAME}")
    run = release.wait_for(NAME)
    assert run.status is not None and run.status.phase is Phase.COMPLETE, run.body
    release.kubectl("delete", "restemrun", NAME, "--timeout=120s")
