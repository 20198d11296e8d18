"""A release's life on a real API server, with helm 4 and helm 3: what each step leaves as it was.

There are no nodes: objects are there, pods are not. What pods make of it is tests/e2e's.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, RELEASE, helm
from control_plane import ControlPlane
from test_chart import GPU, VOLUME

KINDS = (
    "deployments,jobs,pods,services,configmaps,serviceaccounts,roles,rolebindings,"
    "networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,persistentvolumeclaims"
)
CHANGED = (
    "--set=image.tag=another,trainer.replicas=2,jobs.parallelism=3,logLevel=debug",
    "--set=generator.autoscaling.enabled=true,networkPolicy.enabled=false",
    "--set=api.adaptations.queueName=gpus,controller.podAnnotations.a=b",
)
RUN = {
    "apiVersion": "seal.dev/v1alpha1",
    "kind": "RestEMRun",
    "metadata": {"name": "demo"},
    "spec": {"profile": "embedded"},
}


@dataclass(frozen=True)
class Life:
    """A release, and who looks at what there is of it."""

    program: Path
    plane: ControlPlane
    home: Path
    namespace: str

    def helm(self, *arguments: str) -> None:
        places = {
            f"HELM_{kind}_HOME": str(self.home / kind) for kind in ("CACHE", "CONFIG", "DATA")
        }
        done = subprocess.run(
            [
                *(str(self.program), "--kubeconfig", str(self.plane.kubeconfig)),
                *("-n", self.namespace, *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | places,
        )
        assert done.returncode == 0, done.stderr

    def objects(self) -> dict[str, Any]:
        """Those of the release by kind and name."""
        chosen = f"app.kubernetes.io/instance={RELEASE}"
        said = self.plane.kubectl("-n", self.namespace, "get", KINDS, "-l", chosen, "-o", "json")
        return {
            f"{one['kind']}/{one['metadata']['name']}": one for one in json.loads(said)["items"]
        }

    def run(self) -> Any:
        """The run that somebody has made."""
        return json.loads(
            self.plane.kubectl("-n", self.namespace, "get", "restemrun", "demo", "-o", "json")
        )


@pytest.fixture(params=["helm", "helm3"])
def life(
    request: pytest.FixtureRequest, control_plane: ControlPlane, tmp_path: Path
) -> Iterator[Life]:
    """Before the release is installed, in a namespace of its own: nobody empties one here."""
    namespace = f"life-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", namespace)
    yield Life(helm(request.param), control_plane, tmp_path, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def with_run(life: Life) -> Iterator[Life]:
    """The release, and a run that somebody has made."""
    life.helm("install", RELEASE, str(CHART), VOLUME)
    definitions = ("restemruns.seal.dev", "adaptations.seal.dev")
    life.plane.kubectl("wait", "--for=condition=Established", "crd", *definitions)
    life.plane.kubectl("-n", life.namespace, "create", "-f", "-", stdin=json.dumps(RUN))
    yield life
    life.plane.kubectl("delete", "crd", *definitions)
    life.plane.kubectl("delete", "clusterroles", "-l", f"app.kubernetes.io/instance={RELEASE}")


def selectors(objects: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """By Deployment: who it is, and which pods are its."""
    return {
        name: (one["metadata"]["uid"], one["spec"]["selector"])
        for name, one in objects.items()
        if one["kind"] == "Deployment"
    }


def volumes(objects: dict[str, Any]) -> dict[str, str]:
    """Claims by name with their uids."""
    return {
        name: one["metadata"]["uid"]
        for name, one in objects.items()
        if one["kind"] == "PersistentVolumeClaim"
    }


def test_a_life_replaces_nothing_touches_no_run_and_leaves_the_results(with_run: Life) -> None:
    first, run = with_run.objects(), with_run.run()
    with_run.helm("upgrade", RELEASE, str(CHART), VOLUME, *CHANGED)
    second = with_run.objects()
    assert selectors(second) == selectors(first) != {}
    assert volumes(second) == volumes(first) != {}
    assert second["Deployment/seal-trainer"]["spec"]["replicas"] == 2
    assert "HorizontalPodAutoscaler/seal-generator" in second
    assert not [name for name in second if name.startswith("NetworkPolicy/")]
    pulls = [{name for name in one if name.startswith("Job/")} for one in (first, second)]
    assert len(pulls[0]) == len(pulls[1]) == 1, "another image pulls anew, and the old Job is gone"
    assert pulls[0] != pulls[1]
    with_run.helm("rollback", RELEASE, "1")
    third = with_run.objects()
    assert third.keys() == first.keys()
    assert selectors(third) == selectors(first)
    assert image_of(third) == image_of(first) != image_of(second)
    assert with_run.run() == run
    with_run.helm("uninstall", RELEASE)
    assert with_run.objects().keys() == volumes(first).keys()
    assert with_run.run() == run
    # The same release finds them again
    with_run.helm("install", RELEASE, str(CHART), VOLUME)
    assert volumes(with_run.objects()) == volumes(first)
    assert with_run.run() == run


def image_of(objects: dict[str, Any]) -> str:
    (container,) = objects["Deployment/seal-trainer"]["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def test_a_release_goes_from_one_profile_to_another_and_back(life: Life) -> None:
    """Also to `Recreate`, which the API server refuses beside its own default of rollingUpdate."""
    life.helm("install", RELEASE, str(CHART), VOLUME, "--set=crds.enabled=false")
    first = life.objects()
    life.helm("upgrade", RELEASE, str(CHART), GPU, "--set=crds.enabled=false")
    there = life.objects()
    assert selectors(there) == selectors(first)
    assert there["Deployment/seal-trainer"]["spec"]["strategy"] == {"type": "Recreate"}
    life.helm("rollback", RELEASE, "1")
    strategy = life.objects()["Deployment/seal-trainer"]["spec"]["strategy"]
    assert strategy["type"] == "RollingUpdate"
