"""A run that is disturbed in every way ends as the one that was not.

The commands of a cluster whose machines are at hand may be given:

    E2E_KILL     kills the controller in the pod {pod}; default: deletes the pod by force, which a
                 kubelet with cgroupsPerQOS=false may not survive (kubernetes#137999)
    E2E_FAULT    stops and starts a part of the control plane: `{command} stop etcd`, `start etcd`;
                 default: those tests are skipped
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from release import RUN_SECONDS, SERVICES, Release, Run, call, told, until

from controller_svc.core import Phase, RoundStatus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

KILLS = 30
"""At least so many, in as many runs as that takes: on a fast machine one has ended before."""
KILL = "kubectl -n {namespace} delete pod {pod} --force --grace-period=0"
LONGEST_PAUSE_SECONDS = 20.0
"""Between kills. A controller leads after some seconds: some die before that, some after."""
SCORE_TOLERANCE = 1e-3
"""In log-probability: who was trained in one batch shows in the last bits of an adapter."""
MID_TRAINING_SECONDS = 20.0
"""Until an M-step that has begun has loaded its model and is training."""


def scores(entry: RoundStatus) -> dict[str, float | None]:
    """Of a round's validation: the mean of each kind."""
    return {kind: score.mean for kind, score in entry.validation.items()}


def assert_same(run: Run, undisturbed: Run, release: Release) -> None:
    """It ended as the other did: nothing lost, nothing counted twice, nothing left."""
    said = release.kubectl("describe", "restemrun", run.name)
    assert run.status is not None
    assert undisturbed.status is not None
    assert run.status.phase is Phase.COMPLETE, said
    assert run.results == undisturbed.results
    for one, other in zip(run.status.rounds, undisturbed.status.rounds, strict=True):
        assert scores(one) == pytest.approx(scores(other), abs=SCORE_TOLERANCE)
    release.kubectl("delete", "restemrun", run.name, "--timeout=120s")
    mine = ("-l", f"seal.dev/run={run.name}")
    until(lambda: not release.get("jobs,pods", *mine)["items"])


def test_a_controller_that_is_killed_again_and_again_changes_nothing(
    ended: Run, release: Release
) -> None:
    chance, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        runs += 1
        name = release.apply_run(f"killed-{runs}")
        while kills < KILLS and not release.look(name).ended:
            time.sleep(chance.uniform(0.0, LONGEST_PAUSE_SECONDS))
            for pod in release.pods("controller"):
                call(told("E2E_KILL", KILL, namespace=release.namespace, pod=pod))
                kills += 1
        assert_same(release.wait_for(name), ended, release)


def test_every_pod_may_be_deleted_or_evicted_once(ended: Run, release: Release) -> None:
    name = release.apply_run("disturbed")
    until(lambda: bool(release.workers(name)))
    evict(release.workers(name)[0], release)
    for component in (*SERVICES, "controller", "api"):
        for pod in release.pods(component):
            release.kubectl("delete", "pod", pod, "--wait=false")
        release.kubectl("rollout", "status", f"deployment/seal-{component}", "--timeout=300s")
    until(lambda: bool(release.workers(name, "improve")), seconds=RUN_SECONDS)
    (trainer,) = release.workers(name, "improve")
    time.sleep(MID_TRAINING_SECONDS)
    release.kubectl("delete", "pod", trainer, "--wait=false")
    assert_same(release.wait_for(name), ended, release)


def test_an_upgrade_and_a_rollback_in_the_middle_of_a_run_change_nothing(
    ended: Run, release: Release
) -> None:
    name = release.apply_run("upgraded")
    until(lambda: bool(release.workers(name, "rollout")), seconds=RUN_SECONDS)
    before = {component: release.pods(component) for component in (*SERVICES, "controller", "api")}
    release.helm("upgrade", "seal", "charts/seal", "--reuse-values", "--set", "logLevel=debug")
    for component, pods in before.items():
        assert not set(pods) & set(release.pods(component)), "it was not rolled"
    release.helm("rollback", "seal")
    assert_same(release.wait_for(name), ended, release)


def evict(pod: str, release: Release) -> None:
    """As a node that is drained does it."""
    metadata = {"name": pod, "namespace": release.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_a_worker_without_enough_memory_is_named(release: Release) -> None:
    small = {"resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}}}
    name = release.apply_run("too-small", jobTemplate=small)
    run = release.wait_for(name)
    assert run.status is not None
    failed = run.status.condition("Failed")
    assert failed is not None
    assert failed.reason == "AttemptsExhausted"
    assert "memory" in failed.message.lower() or "OOM" in failed.message
    release.kubectl("delete", "restemrun", name)


def test_a_quota_keeps_a_run_waiting_and_says_so(release: Release) -> None:
    running = release.get("pods", "--field-selector", "status.phase=Running")["items"]
    release.kubectl("create", "quota", "full", f"--hard=pods={len(running)}")
    name = release.apply_run("refused")
    try:
        until(lambda: progressing(name, release) == ("False", "QuotaExceeded"))
    finally:
        release.kubectl("delete", "quota", "full")
    until(lambda: progressing(name, release)[0] == "True")
    release.kubectl("delete", "restemrun", name, "--timeout=120s")


def progressing(name: str, release: Release) -> tuple[str, str]:
    """Status and reason of the condition."""
    conditions = release.look(name).body["status"]["conditions"]
    (condition,) = (one for one in conditions if one["type"] == "Progressing")
    return condition["status"], condition["reason"]


@contextmanager
def broken(part: str, signal: str) -> Iterator[None]:
    """A part of the control plane, stopped by a signal as long as the block lasts."""
    if not os.environ.get("E2E_FAULT"):
        pytest.skip("E2E_FAULT names no command that breaks this cluster")
    call([*told("E2E_FAULT", ""), "stop", part, signal])
    try:
        yield
    finally:
        call(
            [
                *told("E2E_FAULT", ""),
                *(("stop", part, "CONT") if signal == "STOP" else ("start", part)),
            ]
        )


def test_a_control_plane_that_fails_changes_nothing(ended: Run, release: Release) -> None:
    name = release.apply_run("uprooted")
    for part, signal, seconds in (
        ("kube-apiserver", "STOP", 30.0),
        ("etcd", "KILL", 10.0),
        ("kubelet", "KILL", 60.0),
    ):
        until(lambda: bool(release.workers(name)))
        with broken(part, signal):
            time.sleep(seconds)
        until(lambda: bool(release.kubectl("get", "restemruns")))
    assert_same(release.wait_for(name), ended, release)
