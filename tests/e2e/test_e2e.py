"""From `helm install` to a run that ends with a laptop's digests, on a real cluster."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from release import MANIFEST, REPOSITORY, RUN_SECONDS, SERVICES, Release, Run, call, results_of

from controller_svc.core import Phase, RunStatus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]


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


def test_helm_test_finds_every_service_and_leaves_no_pod(release: Release) -> None:
    said = call(["helm", "test", "seal", "-n", release.namespace], seconds=300)
    assert "Succeeded" in said
    assert "seal-test" not in release.kubectl("get", "pods", "-o", "name")


def test_the_image_tells_what_it_contains_and_installs_nothing(release: Release) -> None:
    inside = ("exec", "deployment/seal-api", "--")
    assert "torch" in release.kubectl(*inside, "cat", "/usr/share/doc/seal/licenses.txt")
    look = "from importlib.util import find_spec; print(find_spec('pip'))"
    assert release.kubectl(*inside, "python", "-c", look).strip() == "None"


def test_a_run_completes(ended: Run, release: Release) -> None:
    said = release.kubectl("describe", "restemrun", ended.name)
    assert ended.status is not None
    assert ended.status.phase is Phase.COMPLETE, said
    conditions = {one["type"]: one["status"] for one in ended.body["status"]["conditions"]}
    assert conditions["Complete"] == "True"


def test_kubectl_shows_phase_round_reward_progress_and_age(ended: Run, release: Release) -> None:
    header, row = release.kubectl("get", "restemruns", ended.name).splitlines()
    assert header.split() == ["NAME", "PHASE", "ROUND", "REWARD", "PROGRESS", "AGE"]
    shown = dict(zip(header.split(), row.split(), strict=True))
    assert ended.status is not None
    rounds = ended.status.rounds[-1].round
    assert shown["PHASE"] == "Complete"
    assert shown["ROUND"] == f"{rounds}/{rounds}"
    assert shown["PROGRESS"].rstrip("%") == "100"
    float(shown["REWARD"])


def test_kubectl_describe_tells_the_story(ended: Run, release: Release) -> None:
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
    ended: Run, on_this_machine: RunStatus
) -> None:
    kept, trained = results_of(on_this_machine)
    assert ended.results == (kept, trained)
    assert trained, "no policy was trained"


def test_a_run_that_is_deleted_takes_its_jobs_with_it(ended: Run, release: Release) -> None:
    jobs = ("jobs", "-l", f"seal.dev/run={ended.name}")
    assert release.get(*jobs)["items"]
    release.kubectl("delete", "restemrun", ended.name, "--timeout=60s")
    assert not release.get(*jobs)["items"]
