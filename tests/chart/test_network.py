"""Who reaches whom, by the chart's NetworkPolicies as Kubernetes reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from chart import Object, jobs_file, pods, render
from test_chart import GPU, PRODUCTION, S3

from controller_svc.core import StartStage
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.jobs import Owner, stage_job
from seal.records import Stage
from seal.settings import RunSpec
from seal.settings.cluster import ClusterSettings

NAMESPACE, OTHER = "team", "others"
NAMESPACE_NAME = "kubernetes.io/metadata.name"
PORTS = {"generator": 50051, "trainer": 50052, "evaluator": 50053, "api": 50050}
METRICS = {"generator": 9101, "trainer": 9102, "evaluator": 9103, "api": 9100, "controller": 9100}
CALLERS = {
    "generator": {"worker", "controller", "test"},
    "trainer": {"worker", "controller", "test"},
    "evaluator": {"worker", "controller", "test"},
}
"""Who calls whom; the front door everybody does."""


@dataclass(frozen=True)
class Pod:
    """As policies see it."""

    namespace: str
    labels: dict[str, str]


STRANGER = Pod(NAMESPACE, {"app": "another"})


def release(*values: str) -> tuple[list[Object], dict[str, Pod]]:
    """What the chart makes, and all its pods and a Job's by their component."""
    made = render(*values, "--set=models.source=volume")
    found = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template
        for template in pods(made).values()
    }
    (test,) = [one for one in made if one["kind"] == "Pod"]
    labels = {name: template["metadata"]["labels"] for name, template in found.items()}
    labels |= {"test": test["metadata"]["labels"], "worker": worker_labels(made)}
    return made, {name: Pod(NAMESPACE, own) for name, own in labels.items()}


def worker_labels(made: list[Object]) -> dict[str, str]:
    """Of a pod of a Job, as the controller makes it."""
    action = StartStage(
        name="a-r1",
        run="a",
        stage=Stage.ROLLOUT,
        round=1,
        shards=1,
        attempt=1,
        epoch=1,
        policy=None,
    )
    job: Any = stage_job(
        action,
        spec=RunSpec(),
        cluster=ClusterSettings(),
        owner=Owner(kind="RestEMRun", name="a", namespace=NAMESPACE, uid="u"),
        settings=JobSettings.model_validate(jobs_file(made)),
    )
    return job["spec"]["template"]["metadata"]["labels"]


def selects(selector: Any, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )


def is_peer(peer: Any, pod: Pod, policy_namespace: str) -> bool:
    if "namespaceSelector" in peer:
        here = selects(peer["namespaceSelector"], {NAMESPACE_NAME: pod.namespace})
    else:
        here = pod.namespace == policy_namespace
    return here and selects(peer.get("podSelector", {}), pod.labels)


def lets(made: list[Object], direction: str, pod: Pod, other: Pod | None, port: int) -> bool:
    """Whether policies let a pod be called (ingress) or call (egress); None is no pod."""
    own = [
        policy
        for policy in made
        if policy["kind"] == "NetworkPolicy"
        and policy["metadata"].get("namespace", NAMESPACE) == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    side = {"ingress": "from", "egress": "to"}[direction]
    return not own or any(
        (not rule.get("ports") or {"protocol": "TCP", "port": port} in rule["ports"])  # none: all
        and (
            not rule.get(side)  # an empty one too is everybody
            or (other is not None and any(is_peer(one, other, NAMESPACE) for one in rule[side]))
        )
        for policy in own
        for rule in policy["spec"].get(direction, [])
    )


def reaches(made: list[Object], caller: Pod, called: Pod, port: int) -> bool:
    return lets(made, "egress", caller, called, port) and lets(
        made, "ingress", called, caller, port
    )


@pytest.mark.parametrize("values", [(), S3], ids=["volume", "bucket"])
def test_every_edge_is_open_and_no_other(values: tuple[str, ...]) -> None:
    made, found = release(*values)
    assert found.keys() >= {*PORTS, "controller", "models", "test", "worker"}
    for name, port in PORTS.items():
        for caller, pod in found.items():
            wanted = caller in CALLERS[name] if name in CALLERS else caller == "test"
            assert reaches(made, pod, found[name], port) == wanted, (caller, name)


def test_a_stranger_reaches_the_front_door_and_metrics_and_nothing_else() -> None:
    made, found = release()
    open_to = {name for name, port in PORTS.items() if reaches(made, STRANGER, found[name], port)}
    assert open_to == {"api"}
    assert all(reaches(made, STRANGER, found[name], port) for name, port in METRICS.items())
    assert not reaches(made, STRANGER, found["worker"], 80)
    made, found = release(GPU, PRODUCTION)
    assert not reaches(made, STRANGER, found["api"], PORTS["api"])
    assert not any(reaches(made, STRANGER, found[name], port) for name, port in METRICS.items())
    assert reaches(made, Pod("monitoring", {}), found["trainer"], METRICS["trainer"])


def test_without_scrapers_nobody_reaches_the_metrics() -> None:
    made, found = release("--set-json=networkPolicy.scrapers=[]")
    assert not any(reaches(made, STRANGER, found[name], port) for name, port in METRICS.items())
    assert reaches(made, STRANGER, found["api"], PORTS["api"])


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.traces:4317", 4317), ("https://collector.traces/", 443)],
)
def test_traces_go_out_by_the_port_that_is_dialled(endpoint: str, port: int) -> None:
    made, found = release(f"--set=tracing.endpoint={endpoint}")
    assert all(
        lets(made, "egress", pod, None, port) for name, pod in found.items()
        if name not in ("test", "models")
    )  # fmt: skip


def test_only_who_asks_the_api_server_reaches_it() -> None:
    made, found = release()
    asking = {name for name, pod in found.items() if lets(made, "egress", pod, None, 6443)}
    assert asking == {"controller", "api"}


def test_only_a_bucket_and_the_pull_of_models_need_the_world() -> None:
    without, found = release()
    asks = {"controller", "api", "models"}  # the first two for the API server
    assert {name for name, pod in found.items() if lets(without, "egress", pod, None, 443)} == asks
    bucket, found = release(*S3)
    assert {name for name, pod in found.items() if lets(bucket, "egress", pod, None, 443)} == (
        found.keys() - {"test"}
    )


@pytest.mark.parametrize("none", ["null", "[]"])
def test_without_ports_of_its_bucket_or_of_the_api_server_nobody_reaches_the_world(
    none: str,
) -> None:
    made, found = release(
        *S3,
        f"--set-json=networkPolicy.objectStorePorts={none}",
        f"--set-json=networkPolicy.apiServerPorts={none}",
    )
    out = {name for name, pod in found.items() if lets(made, "egress", pod, None, 443)}
    assert out == {"models"}
    assert not any(lets(made, "egress", pod, None, 6443) for pod in found.values())
    assert reaches(made, found["controller"], found["trainer"], PORTS["trainer"])


def test_workers_of_every_namespace_that_is_served_are_let_in() -> None:
    made, found = release(*S3, f"--set=controller.namespaces={{{OTHER}}}")
    elsewhere = Pod(OTHER, found["worker"].labels)
    for name in CALLERS:
        assert reaches(made, elsewhere, found[name], PORTS[name])
    assert not reaches(made, Pod("a-third", found["worker"].labels), found["trainer"], 50052)
    assert not lets(made, "egress", elsewhere, None, 80)


def test_what_the_values_add_is_added() -> None:
    rule = '[{"ports": [{"protocol": "TCP", "port": 9000}]}]'
    made, found = release(f"--set-json=evaluator.egress={rule}")
    out = {name for name, pod in found.items() if lets(made, "egress", pod, None, 9000)}
    assert out == {"evaluator"}
    made, found = release(f"--set-json=networkPolicy.egress={rule}")
    out = {name for name, pod in found.items() if lets(made, "egress", pod, None, 9000)}
    assert out == found.keys() - {"test"}
    made, _ = release("--set=networkPolicy.enabled=false")
    assert not [one for one in made if one["kind"] == "NetworkPolicy"]
