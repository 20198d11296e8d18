"""From `helm install` to a run that ends with a laptop's digests, on a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from release import REPOSITORY, SERVICES, Release

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.objects import of_object

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

RUN_SECONDS = 3600
MANIFEST = REPOSITORY / os.environ.get("E2E_RUN", "examples/smoke.yaml")
ENDED = {Phase.COMPLETE, Phase.FAILED}


@dataclass(frozen=True)
class Ended:
    """A run that has ended on the cluster."""

    name: str
    status: RunStatus
    body: Any


@pytest.fixture(scope="module")
def ended(release: Release) -> Ended:
    """The run of the manifest, applied and waited for."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    name = str(manifest["metadata"]["name"])
    release.kubectl("apply", "-f", str(MANIFEST))
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        body = release.get("restemrun", name)
        status = of_object(body.get("status") or {})
        if status is not None and status.phase in ENDED:
            return Ended(name, status, body)
        assert time.monotonic() < deadline, release.kubectl("describe", "restemrun", name)
        time.sleep(2)


@pytest.fixture(scope="module")
def on_this_machine(tmp_path_factory: pytest.TempPathFactory) -> RunStatus:
    """The same manifest through `seal run`."""
    root = tmp_path_factory.mktemp("local")
    command = [sys.executable, "-c", "from controller_svc.cli import main; main()"]
    command += ["run", str(MANIFEST), "--root", str(root)]
    command += ["--engine", "dtype=float32", "--engine", "threads=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (status,) = root.glob("*/status.json")
    return RunStatus.model_validate_json(status.read_bytes())


def test_every_pod_is_ready_and_none_was_started_twice(release: Release) -> None:
    found = release.get("pods", "-l", "app.kubernetes.io/instance=seal")["items"]
    pods = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert components >= {*SERVICES, "controller", "api"}
    for pod in pods:
        (container,) = pod["status"]["containerStatuses"]
        assert (container["ready"], container["restartCount"]) == (True, 0), pod["metadata"]["name"]


def test_a_run_completes(ended: Ended, release: Release) -> None:
    said = release.kubectl("describe", "restemrun", ended.name)
    assert ended.status.phase is Phase.COMPLETE, said
    conditions = {one["type"]: one["status"] for one in ended.body["status"]["conditions"]}
    assert conditions["Complete"] == "True"


def test_kubectl_shows_phase_round_reward_progress_and_age(ended: Ended, release: Release) -> None:
    header, row = release.kubectl("get", "restemruns", ended.name).splitlines()
    assert header.split() == ["NAME", "PHASE", "ROUND", "REWARD", "PROGRESS", "AGE"]
    shown = dict(zip(header.split(), row.split(), strict=True))
    rounds = ended.status.rounds[-1].round
    assert shown["PHASE"] == "Complete"
    assert shown["ROUND"] == f"{rounds}/{rounds}"
    assert shown["PROGRESS"].rstrip("%") == "100"
    float(shown["REWARD"])


def test_kubectl_describe_tells_the_story(ended: Ended, release: Release) -> None:
    events = release.get("events", "--field-selector", f"involvedObject.name={ended.name}")
    told = [(one["reason"], one["message"]) for one in in_order(events["items"])]
    assert told[0][0] == "PrepareRunning"
    assert told[-1][0] == "AllRoundsDone"
    assert len(told) == len(set(told)), "an event twice"
    assert in_order(events["items"]) == sorted(
        events["items"], key=lambda one: one["metadata"]["creationTimestamp"]
    )


def in_order(events: list[Any]) -> list[Any]:
    """Events as `kubectl describe` dates them."""
    return sorted(events, key=lambda one: one["lastTimestamp"])


def test_a_run_ends_with_the_digests_of_the_same_file_on_this_machine(
    ended: Ended, on_this_machine: RunStatus
) -> None:
    def selections(status: RunStatus) -> dict[int, str]:
        return {one.round: one.selection_sha256 for one in status.rounds}

    def policies(status: RunStatus) -> dict[int, str]:
        return {one.round: one.adapter.sha256 for one in status.policies if one.adapter is not None}

    assert selections(ended.status) == selections(on_this_machine)
    trained = policies(ended.status)
    assert trained == policies(on_this_machine)
    assert trained, "no policy was trained"


def test_a_run_that_is_deleted_takes_its_jobs_with_it(ended: Ended, release: Release) -> None:
    jobs = ("jobs", "-l", f"seal.dev/run={ended.name}")
    assert release.get(*jobs)["items"]
    release.kubectl("delete", "restemrun", ended.name, "--timeout=60s")
    assert not release.get(*jobs)["items"]
