"""What a cluster reads in the chart's objects: two releases, rendered once."""

from __future__ import annotations

import pytest
import yaml
from chart import CHART, SERVICES, Object, container, environment, jobs_file, of_kind, pods, render
from test_network import Pod, release, selects

from seal.v1 import adaptation_pb2, evaluator_pb2, generator_pb2, trainer_pb2

PROTOS = {
    "generator": generator_pb2,
    "trainer": trainer_pb2,
    "evaluator": evaluator_pb2,
    "api": adaptation_pb2,
}
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
KEEP = "helm.sh/resource-policy"
OTHERS = (
    "--set=artifacts.volume.keep=false,models.startupSeconds=900",
    "--set=models.volume.pull.existingSecret=hub",
    f"--set=image.digest={DIGEST},image.tag=ignored",
    "--set=trainer.autoscaling.enabled=true",
    "--set=trainer.autoscaling.minReplicas=2,trainer.autoscaling.maxReplicas=6",
)


@pytest.fixture(scope="module")
def defaults() -> list[Object]:
    return render()


@pytest.fixture(scope="module")
def other() -> tuple[list[Object], dict[str, Pod]]:
    """Objects with a volume of models and other values, and all pods by their component."""
    return release(*OTHERS)


def test_a_claim_outlives_its_release_where_it_is_to_be_kept(
    defaults: list[Object], other: tuple[list[Object], dict[str, Pod]]
) -> None:
    (kept,) = of_kind(defaults, "PersistentVolumeClaim").values()
    assert kept["metadata"]["annotations"] == {KEEP: "keep"}
    claims = of_kind(other[0], "PersistentVolumeClaim")
    assert KEEP not in claims["seal-artifacts"]["metadata"].get("annotations", {})
    assert claims["seal-models"]["metadata"]["annotations"] == {KEEP: "keep"}


def test_a_pod_is_called_once_its_service_serves_and_killed_only_where_nothing_answers(
    defaults: list[Object],
) -> None:
    for component, proto in PROTOS.items():
        own = container(pods(defaults)[f"seal-{component}"])
        (service,) = proto.DESCRIPTOR.services_by_name.values()
        port = next(one["containerPort"] for one in own["ports"] if one["name"] == "grpc")
        for probe in ("startupProbe", "readinessProbe"):
            assert own[probe]["grpc"] == {"port": port, "service": service.full_name}
        assert own["livenessProbe"]["grpc"] == {"port": port}, "one that drains, or loads, is alive"
    controller = container(pods(defaults)["seal-controller"])
    assert controller["readinessProbe"]["httpGet"] == {"port": "health", "path": "/readyz"}
    assert controller["livenessProbe"]["httpGet"] == {"port": "health", "path": "/healthz"}


def test_clients_see_every_pod_of_a_service_behind_its_name(defaults: list[Object]) -> None:
    services = of_kind(defaults, "Service")
    assert {services[f"seal-{name}"]["spec"]["clusterIP"] for name in SERVICES} == {"None"}


def test_a_service_has_as_many_pods_as_its_bounds_allow(
    other: tuple[list[Object], dict[str, Pod]],
) -> None:
    ((name, scaler),) = of_kind(other[0], "HorizontalPodAutoscaler").items()
    found = scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
    assert (name, *found) == ("seal-trainer", 2, 6)


def test_every_pod_may_look_names_up(other: tuple[list[Object], dict[str, Pod]]) -> None:
    made, found = other
    policies = of_kind(made, "NetworkPolicy").values()
    for component, pod in found.items():
        open_to_all = [
            (port["protocol"], port["port"])
            for policy in policies
            if selects(policy["spec"]["podSelector"], pod.labels)
            for rule in policy["spec"].get("egress", [])
            if not rule.get("to")
            for port in rule["ports"]
        ]
        assert {("UDP", 53), ("TCP", 53)} <= set(open_to_all), component


def test_services_wait_for_a_model_where_a_volume_may_be_filled_only_now(
    defaults: list[Object], other: tuple[list[Object], dict[str, Pod]]
) -> None:
    for name in SERVICES:
        assert environment(pods(other[0])[f"seal-{name}"])["SEAL_MODEL_WAIT_SECONDS"] == "900"
        assert "SEAL_MODEL_WAIT_SECONDS" not in environment(pods(defaults)[f"seal-{name}"])


def test_the_secret_of_the_hub_goes_to_the_pull_and_to_nobody_else(
    other: tuple[list[Object], dict[str, Pod]],
) -> None:
    made = {name: container(pod).get("envFrom") for name, pod in pods(other[0]).items()}
    (pull,) = of_kind(other[0], "Job")
    assert made.pop(pull) == [{"secretRef": {"name": "hub"}}]
    assert not any(made.values())


def test_a_digest_is_the_image_of_every_pod_and_without_one_the_charts_version(
    defaults: list[Object], other: tuple[list[Object], dict[str, Pod]]
) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for made, image in ((defaults, f":{version}"), (other[0], f"@{DIGEST}")):
        (test,) = of_kind(made, "Pod").values()
        found = {container(pod)["image"] for pod in pods(made).values()}
        found |= {one["image"] for one in test["spec"]["containers"]}
        found |= {jobs_file(made)[name]["image"] for name in ("worker", "trainer")}
        assert found == {f"localhost/seal{image}"}
