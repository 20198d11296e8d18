"""What helm 4 and helm 3 leave of a release when they uninstall it, and find again afterwards."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from release import ROLL_SECONDS, TINY, Release, call, until

from controller_svc.core import Phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

HELD = "held"
"""A run that is under way, and suspended so that nothing but the release may change it."""
KUBERNETES_OWN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
PASSING = ("events", "endpoints", "endpointslices", "pods.metrics")
"""Kinds of what goes by itself, or is told and forgotten."""
LEASE = "lease.coordination.k8s.io/seal-controller"
RESULTS = ("persistentvolumeclaim/", "restemrun.", "adaptation.", "inferenceservice.", LEASE)
"""What is kept: artifacts, the objects of users and what serves adapters to them, and the epoch."""
DEFINITIONS = {"restemruns.seal.dev", "adaptations.seal.dev"}


def everything(release: Release) -> set[str]:
    """All objects of the namespace but Kubernetes' own."""
    command = ("api-resources", "--namespaced", "--verbs=list", "-o", "name")
    kinds = [kind for kind in call(["kubectl", *command]).split() if not kind.startswith(PASSING)]
    found = release.kubectl("get", ",".join(kinds), "-o", "name", "--ignore-not-found").split()
    return set(found) - KUBERNETES_OWN


def definitions() -> set[str]:
    """Names of the project's own kinds."""
    found = json.loads(call(["kubectl", "get", "crd", "-o", "json"]))["items"]
    return {one["metadata"]["name"] for one in found if one["spec"]["group"] == "seal.dev"}


def held(release: Release) -> dict[str, Any]:
    """What makes the run what it is."""
    body = release.look(HELD).body
    status = {name: value for name, value in body["status"].items() if name != "progress"}
    return {"uid": body["metadata"]["uid"], "spec": body["spec"], "status": status}


def is_suspended(release: Release) -> bool:
    """Whether the controller has seen that the run is."""
    run = release.look(HELD)
    condition = run.status.condition("Suspended") if run.status is not None else None
    return condition is not None and condition.status == "True"


def test_uninstalled_by_helm_4_and_3_it_leaves_results_and_nothing_else(
    release: Release, installed: tuple[str, ...]
) -> None:
    if shutil.which("helm3") is None:
        pytest.skip("helm3 is not on the PATH")
    run = release.wait_for(release.apply_run("kept", **TINY))
    assert run.status is not None and run.status.phase is Phase.COMPLETE
    release.apply_run(HELD, suspend=True)
    until(lambda: is_suspended(release))
    release.kubectl("delete", "jobs", "--all")  # else they go an hour after their end
    before, there = held(release), everything(release)
    stay = {one for one in there if one.startswith(RESULTS)}
    assert len(stay) >= 3 and len(there) > 2 * len(stay), there
    for uninstaller, installer in (("helm", "helm3"), ("helm3", "helm")):
        call(
            [uninstaller, "uninstall", "seal", "-n", release.namespace, "--wait"],
            seconds=ROLL_SECONDS,
        )
        until(lambda: everything(release) == stay)  # a pod ends its calls first
        assert definitions() == DEFINITIONS, uninstaller
        call([installer, *installed, "-n", release.namespace], seconds=ROLL_SECONDS)
        assert held(release) == before, f"{installer} changed it"
        assert release.look("kept").status == run.status
    release.kubectl("delete", "restemruns", "kept", HELD, "--timeout=120s")
