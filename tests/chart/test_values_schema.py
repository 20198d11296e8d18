"""values.schema.json refuses by name what is wrong, and says what the code says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart import CHART, template

from controller_svc.k8s.job_settings import TASK_VARIABLES
from seal.settings import EngineSettings
from seal.settings.cluster import AdaptationClusterSettings

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
WRONG = {
    "replica: 2": "replica",
    "model: ''": "model",
    "logLevel: loud": "logLevel",
    "fullnameOverride: Seal": "fullnameOverride",
    "crds: {keep: 'yes'}": "keep",
    "image: {tag: 1.5}": "tag",
    "image: {digest: sha256:abc}": "digest",
    "image: {pullPolicy: Sometimes}": "pullPolicy",
    "image: {pullSecrets: [Registry_1]}": "pullSecrets",
    "models: {source: cloud}": "source",
    "models: {startupSeconds: 1}": "startupSeconds",
    "models: {volume: {mountPath: models}}": "mountPath",
    "models: {volume: {size: 50 GB}}": "size",
    "artifacts: {uri: 'http://bucket'}": "uri",
    "artifacts: {volume: {accessModes: []}}": "accessModes",
    "artifacts: {volume: {accessModes: [ReadWrite]}}": "accessModes",
    "engine: {maxRowToken: 512}": "maxRowToken",
    "engine: {slots: -1}": "slots",
    "engine: {dtype: float16}": "dtype",
    "engine: {device: gpu}": "device",
    "generator: {resources: {limit: {cpu: 1}}}": "limit",
    "generator: {resources: {limits: {memory: 2 Gi}}}": "memory",
    "generator: {autoscaling: {minReplicas: 0}}": "minReplicas",
    "generator: {autoscaling: {pauseSeconds: 1801}}": "pauseSeconds",
    "trainer: {autoscaling: {pauseSeconds: 0}}": "pauseSeconds",
    "trainer: {replicas: -1}": "replicas",
    "commonLabels: {a team: research}": "commonLabels",
    "environment: {AWS_REGION: 1}": "AWS_REGION",
    "environment: {SEAL_RUN: mine}": "SEAL_RUN",
    "trainer: {podLabels: {team: our team}}": "podLabels",
    "trainer: {topologySpreadConstraints: [{topologyKey: zone}]}": "topologySpreadConstraints",
    "trainer: {volumes: [{name: a, hostPath: {path: /}}]}": "volumes",
    "trainer: {volumes: [{secret: {secretName: a}}]}": "volumes",
    "trainer: {volumeMounts: [{name: a, mountPath: etc}]}": "mountPath",
    "trainer: {tolerations: [{key: gpu, operator: Exist}]}": "operator",
    "trainer: {nodeSelector: {gpu: true}}": "nodeSelector",
    "evaluator: {strategy: {type: Rolling}}": "strategy",
    "evaluator: {env: [{name: SEAL-JUDGE, value: a}]}": "name",
    "evaluator: {env: [{name: KEY, valueFrom: {secretRef: {name: judge}}}]}": "secretRef",
    "controller: {namespaces: [a, a]}": "namespaces",
    "controller: {workers: 0}": "workers",
    "controller: {engine: {slots: 1}}": "engine",
    "api: {service: {port: 70000}}": "port",
    "api: {service: {type: Ingress}}": "type",
    "api: {adaptations: {publish: {kserve: {name: Qwen}}}}": "name",
    "api: {ingress: {enabled: true}}": "hosts",
    "api: {ingress: {hosts: ['https://seal.example.org']}}": "hosts",
    "api: {ingress: {tls: [{secret: seal-tls}]}}": "secret",
    "api: {adaptations: {suspend: true}}": "suspend",
    "jobs: {parallelism: 0}": "parallelism",
    "jobs: {ttlSeconds: 1}": "ttlSeconds",
    "jobs: {queueName: The Queue}": "queueName",
    "jobs: {trainer: {affinity: {node: {}}}}": "node",
    "tracing: {endpoint: 'collector:4317'}": "endpoint",
    "podSecurityContext: {runAsUser: 0}": "runAsUser",
    "podSecurityContext: {fsGroupChangePolicy: Never}": "fsGroupChangePolicy",
    "podSecurityContext: {privileged: true}": "privileged",
    "temporaryFiles: {sizeLimit: 4 GB}": "sizeLimit",
    "networkPolicy: {scrapers: [{namespace: monitoring}]}": "namespace",
    "networkPolicy: {apiServerPorts: [443, https]}": "apiServerPorts",
    "disruptionBudget: {maxUnavailable: half}": "maxUnavailable",
    "monitoring: {grafana: grafana.example.org}": "grafana",
    "monitoring: {podMonitor: {interval: 30}}": "interval",
    "monitoring: {rules: {alerts: {SealRunStaled: {enabled: false}}}}": "SealRunStaled",
    "monitoring: {rules: {alerts: {SealRunStalled: {for: 5 min}}}}": "for",
    "monitoring: {rules: {alerts: {SealAnswersUngraded: {threshold: 10}}}}": "threshold",
    "monitoring: {dashboards: {labels: {grafana_dashboard: 1}}}": "grafana_dashboard",
}
FREE = {"global": "Helm's own", "terms": "Kubernetes' own terms of affinity"}
"""Objects of which anything may be said, and why."""


@pytest.mark.parametrize("values", WRONG)
def test_a_wrong_value_is_refused_by_name(values: str) -> None:
    assert names_the_field(values, "helm")


@pytest.mark.parametrize("values", list(WRONG)[::8])
def test_helm_3_names_it_too(values: str) -> None:
    assert names_the_field(values, "helm3")


def names_the_field(values: str, program: str) -> bool:
    """Whether a line of the refusal says where: `- at '/trainer/replicas': minimum: got -1 ...`."""
    done = template("--values=-", program=program, stdin=values)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.lstrip().startswith("- at ")]
    field = re.compile(rf"[/']{WRONG[values]}['/]")
    return any(field.search(line) for line in lines)


def objects(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The schema's objects, by where they stand in it."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield at, node
        for name, value in node.items():
            yield from objects(value, f"{at}/{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from objects(value, f"{at}/{number}")


def test_no_object_takes_what_it_does_not_know() -> None:
    free = [at for at, node in objects(SCHEMA) if "additionalProperties" not in node]
    assert [at for at in free if "ffinity" not in at] == ["/properties/global"], FREE
    assert all(at.endswith(("/items", "/items/items")) for at in free if "ffinity" in at), free


def properties(schema: Any) -> dict[str, Any]:
    """Of an object, where it is defined."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema.get("properties", {})


def unlike(values: Any, schema: Any, at: str = "") -> Iterator[str]:
    """Values without a place in the schema, and places without a value."""
    known = properties(schema)
    for name, value in values.items():
        if name not in known:
            yield f"{at}{name}: not in the schema"
        elif isinstance(value, dict) and value and properties(known[name]):
            yield from unlike(value, known[name], f"{at}{name}.")
    yield from (f"{at}{name}: no default" for name in known if name not in values)


def test_every_value_has_its_place_in_the_schema_and_every_place_a_default() -> None:
    everywhere = {f"{one}: no default" for one in properties({"$ref": "/service"})}
    found = set(unlike(VALUES, SCHEMA)) - {"global: no default", "enabled: no default"}
    pods = ("trainer.", "evaluator.", "controller.", "api.")
    assert {one for one in found if not one.startswith(pods)} == set()
    # What only the generator's lines show is said above the others
    assert {one.partition(".")[2] for one in found} <= everywhere


def said(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema without what values.schema.json leaves out."""
    left_out = {"title", "description", "default", "x-kubernetes-int-or-string"}
    optional = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(optional) == 1:
        return said(optional[0])
    return {name: value for name, value in schema.items() if name not in left_out}


def test_the_engines_bounds_are_those_of_its_options() -> None:
    known = properties({"$ref": "/engine"})
    real = EngineSettings.model_json_schema()["properties"]
    assert known.keys() == real.keys()
    for name in known.keys() - {"device"}:  # any of torch's; the chart knows CPUs and CUDA
        assert known[name] == said(real[name]), name


def test_the_variables_that_are_refused_are_those_of_a_jobs_task() -> None:
    refused = next(iter(SCHEMA["properties"]["environment"]["patternProperties"]))
    names = re.fullmatch(r"\^SEAL_\((.+)\)\$", refused)
    assert names is not None
    assert {f"SEAL_{name}" for name in names[1].split("|")} == TASK_VARIABLES


@pytest.mark.parametrize("kind", ["Toleration", "JobTemplate", "KServeSettings", "PublishSettings"])
def test_what_adaptations_get_is_what_the_front_door_takes(kind: str) -> None:
    known = properties({"$ref": f"/{kind[0].lower()}{kind[1:]}"})
    definition = AdaptationClusterSettings.model_json_schema()["$defs"][kind]
    assert known.keys() == definition["properties"].keys()
    for name, schema in definition["properties"].items():
        real = said(schema)
        if "$ref" not in json.dumps(real):
            assert known[name] == real, name
