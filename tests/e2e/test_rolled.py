"""Each Deployment is restarted while calls go on from within the cluster: none is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from release import SERVICES, Release, call, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

SCRIPT = Path(__file__).parents[1] / "support/pod_load.py"
ROLLED = ("api", *SERVICES)
AT_LEAST = {"cheap": 100, "real": 5}
"""Answered calls of each service, or it was no load."""


@pytest.fixture
def load(release: Release) -> Iterator[str]:
    """The name of a pod that calls all services all the time.

    It is that of `helm test`, which may call them, with another program.
    """
    pod = yaml.safe_load(call(["helm", "get", "hooks", "seal", "-n", release.namespace]))
    pod["metadata"] = {"name": "load", "labels": pod["metadata"]["labels"]}
    (container,) = pod["spec"]["containers"]
    services = [word for word in container["command"] if word.startswith("dns:")]
    del pod["spec"]["activeDeadlineSeconds"]
    container["command"] = ["python", "-c", SCRIPT.read_text("utf-8"), release.namespace, *services]
    release.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        until(lambda: "begun" in release.kubectl("logs", "load"))
        yield "load"
    finally:
        release.kubectl("delete", "pod", "load", "--grace-period=0")


def phase(pod: str, release: Release) -> str:
    """Whether a pod is at work, or how it ended."""
    return str(release.get("pod", pod)["status"]["phase"])


def test_a_rolling_restart_of_each_deployment_loses_no_request(
    load: str, release: Release, record_property: pytest.RecordProperty
) -> None:
    for component in ROLLED:
        before = set(release.pods(component))
        release.restart(component)
        assert not before & set(release.pods(component)), "it was not rolled"
    assert phase(load, release) == "Running", release.kubectl("logs", load)
    release.kubectl("exec", load, "--", "touch", "/tmp/enough")
    until(lambda: phase(load, release) in ("Succeeded", "Failed"))
    said = release.kubectl("logs", load)
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert len(told) == len(ROLLED), said
    for service, paces in told.items():
        for pace, calls in paces.items():
            assert calls["lost"] == [], (service, pace)
            assert calls["answered"] >= AT_LEAST[pace], (service, pace)
            assert len(calls["answers"]) == 1, (service, pace)
    print(json.dumps(told, indent=2))
    record_property(
        "n", sum(calls["answered"] for paces in told.values() for calls in paces.values())
    )
