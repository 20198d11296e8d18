"""A real API server takes what the chart makes, and gives its processes the rights they need."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from chart import Object, access, jobs_file, pods, render
from control_plane import ControlPlane
from test_chart import VALUES

from controller_svc.core import StartStage
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.jobs import Owner, stage_job
from seal.records import Stage
from seal.settings import RunSpec
from seal.settings.cluster import ClusterSettings

CONTROLLER = "system:serviceaccount:team:seal-controller"
API = "system:serviceaccount:team:seal-api"
NEEDED = {
    CONTROLLER: (
        "list restemruns.seal.dev",
        "watch adaptations.seal.dev",
        "delete restemruns.seal.dev",
        "update restemruns.seal.dev/status",
        "update restemruns.seal.dev/finalizers",
        "create jobs.batch",
        "delete jobs.batch",
        "watch jobs.batch",
        "list pods",
        "list events",
        "create events",
        "list workloads.kueue.x-k8s.io",
        "create leases.coordination.k8s.io",
        "update leases.coordination.k8s.io/seal-controller",
    ),
    API: (
        "create adaptations.seal.dev",
        "watch adaptations.seal.dev",
        "update adaptations.seal.dev",
        "delete adaptations.seal.dev",
    ),
}
REFUSED = {
    CONTROLLER: (
        "get secrets",
        "create restemruns.seal.dev",
        "update restemruns.seal.dev",
        "create pods",
        "create pods/exec",
        "update jobs.batch",
        "update leases.coordination.k8s.io/another",
        "create inferenceservices.serving.kserve.io",
    ),
    API: (
        "get secrets",
        "list restemruns.seal.dev",
        "update adaptations.seal.dev/status",
        "create jobs.batch",
        "list pods",
    ),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_api_server_takes_every_object(
    values: tuple[str, ...], restricted: ControlPlane
) -> None:
    made = render(*values, "--set=crds.enabled=false", "--set=controller.namespaces={team}")
    made = [one for one in made if not one["apiVersion"].startswith("monitoring.coreos.com/")]
    accepts(restricted, made)


def test_prometheus_operators_kinds_are_taken_too(restricted: ControlPlane) -> None:
    folder = os.environ.get("SEAL_TEST_CRDS")
    definitions = sorted(Path(folder).glob("monitoring.coreos.com_*.yaml")) if folder else []
    if not definitions:
        pytest.skip("SEAL_TEST_CRDS names no folder with the operator's definitions")
    for path in definitions:
        restricted.kubectl("create", "-f", str(path))
        restricted.kubectl("wait", "--for=condition=Established", "-f", str(path))
    made = render(*VALUES["options"])
    asked = [one for one in made if one["apiVersion"].startswith("monitoring.coreos.com/")]
    assert {one["kind"] for one in asked} >= {"PodMonitor"}
    accepts(restricted, asked)


def accepts(plane: ControlPlane, made: list[Object]) -> None:
    """It takes all of them, and knows every field."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    said = plane.kubectl(
        *("-n", "team", "apply", "--server-side", "--dry-run=server", "--validate=strict"),
        *("-o", "name", "-f", "-"),
        stdin=listed,
    )
    assert len(said.splitlines()) == len(made)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_pod_is_one_that_the_standard_restricted_admits(
    values: tuple[str, ...], restricted: ControlPlane
) -> None:
    made = render(*values)
    settings = JobSettings.model_validate(jobs_file(made))
    templates = pods(made) | {
        f"job-{stage}": job(stage, settings)["spec"]["template"]
        for stage in (Stage.ROLLOUT, Stage.IMPROVE)
    }
    for name, pod in templates.items():
        body = {"apiVersion": "v1", "kind": "Pod"} | pod
        body["metadata"] = {**pod["metadata"], "name": name, "namespace": "team"}
        code, said = restricted.request(
            "POST", "/api/v1/namespaces/team/pods?dryRun=All&fieldValidation=Strict", body
        )
        assert code == 201, (name, said)


def job(stage: Stage, settings: JobSettings) -> Object:
    action = StartStage(
        name=f"run-r1-{stage}-a1",
        run="run-1f",
        stage=stage,
        round=1,
        shards=1,
        attempt=1,
        epoch=1,
        policy=None,
    )
    owner = Owner(kind="RestEMRun", name="run", namespace="team", uid="u-1")
    return stage_job(
        action, spec=RunSpec(), cluster=ClusterSettings(), owner=owner, settings=settings
    )


@pytest.fixture(scope="module")
def with_roles(restricted: ControlPlane) -> ControlPlane:
    """A control plane on which the release's roles hold."""
    restricted.kubectl(
        *("-n", "team", "apply", "--server-side", "-f", "-"), stdin=yaml.safe_dump_all(access())
    )
    return restricted


def can(plane: ControlPlane, who: str, request: str) -> bool:
    verb, _, what = request.partition(" ")
    kind, _, name = what.partition("/")
    resource, _, group = kind.partition(".")
    part = {"subresource": name} if name in ("status", "finalizers", "exec") else {"name": name}
    asked = {"namespace": "team", "verb": verb, "group": group, "resource": resource} | part
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": asked},
    }
    code, said = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert code == 201, said
    return said["status"]["allowed"]


@pytest.mark.parametrize(
    ("who", "request_"), [(who, one) for who, several in NEEDED.items() for one in several]
)
def test_a_process_may_do_what_it_does(who: str, request_: str, with_roles: ControlPlane) -> None:
    assert can(with_roles, who, request_)


@pytest.mark.parametrize(
    ("who", "request_"), [(who, one) for who, several in REFUSED.items() for one in several]
)
def test_a_process_may_do_no_more(who: str, request_: str, with_roles: ControlPlane) -> None:
    assert not can(with_roles, who, request_)


def test_the_pods_of_jobs_may_do_nothing(with_roles: ControlPlane) -> None:
    jobs = "system:serviceaccount:team:seal-jobs"
    assert not can(with_roles, jobs, "get pods")
    assert not can(with_roles, jobs, "get restemruns.seal.dev")
