"""From `helm install` to a run that ends with a laptop's digests, on a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class Local:
    """The same run on this machine, and where its files are."""

    root: Path
    status: RunStatus


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
def on_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Local:
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
    return Local(root, RunStatus.model_validate_json(status.read_bytes()))


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


def test_a_run_ends_with_the_edits_and_the_weights_of_the_same_file_on_this_machine(
    ended: Ended, on_this_machine: Local, release: Release
) -> None:
    """Of an adapter the weights: its model card names the run, which the store calls otherwise."""

    def selections(status: RunStatus) -> dict[int, str]:
        return {one.round: one.selection_sha256 for one in status.rounds}

    def policies(status: RunStatus, read: Callable[[str], str]) -> dict[int, str]:
        manifests = {
            one.round: json.loads(read(f"{one.adapter.path}/manifest.json"))
            for one in status.policies
            if one.adapter is not None
        }
        return {
            round: manifest["files"]["adapter_model.safetensors"]["sha256"]
            for round, manifest in manifests.items()
        }

    def there(path: str) -> str:
        where = ("exec", "deployment/seal-api", "--", "cat")
        return release.kubectl(*where, f"/artifacts/{path}")

    def here(path: str) -> str:
        return (on_this_machine.root / path).read_text(encoding="utf-8")

    assert selections(ended.status) == selections(on_this_machine.status)
    trained = policies(ended.status, there)
    assert trained == policies(on_this_machine.status, here)
    assert trained, "no policy was trained"


def test_a_run_that_is_deleted_takes_its_jobs_with_it(ended: Ended, release: Release) -> None:
    jobs = ("jobs", "-l", f"seal.dev/run={ended.name}")
    assert release.get(*jobs)["items"]
    release.kubectl("delete", "restemrun", ended.name, "--timeout=60s")
    assert not release.get(*jobs)["items"]
