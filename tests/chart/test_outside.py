"""Callers from outside: the Ingress of the chart, and the values that docs/install.md shows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from chart import CHART, LOADER, container, environment, of_kind, pods, render, template
from test_chart import GPU, HOST, VALUES

DOC = CHART.parents[1] / "docs/install.md"


def shown(begins: str) -> Any:
    """The block of YAML of the page that begins so."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(begins))
    return yaml.safe_load(found)


def test_the_ingress_leads_to_a_port_of_the_front_door() -> None:
    made = render(*VALUES["options"])
    ((_, ingress),) = of_kind(made, "Ingress").items()
    assert ingress["spec"]["tls"] == [{"secretName": "seal-tls", "hosts": [HOST]}]
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == HOST
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = of_kind(made, "Service")[backend["name"]]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert (path["path"], path["pathType"]) == ("/", "Prefix")


@pytest.mark.parametrize("values", [(), ("--set=api.enabled=false,api.ingress.enabled=true",)])
def test_without_being_asked_for_or_without_a_front_door_there_is_none(
    values: tuple[str, ...],
) -> None:
    made = render(*values, f"--set=api.ingress.hosts={{{HOST}}}")
    assert not of_kind(made, "Ingress")


def test_the_values_that_the_page_shows_make_an_ingress() -> None:
    values = shown("# my-values.yaml")
    (host,) = values["api"]["ingress"]["hosts"]
    done = template("--values=-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Ingress"]
    (ingress,) = made
    assert ingress["spec"]["rules"][0]["host"] == host
    assert ingress["metadata"]["annotations"] == values["api"]["ingress"]["annotations"]
    assert f"--server https://{host}" in DOC.read_text(encoding="utf-8")


def test_the_values_that_the_page_shows_let_the_services_use_vllm() -> None:
    done = template(GPU, "--values=-", stdin=json.dumps(shown("# vllm.yaml")))
    assert done.returncode == 0, done.stderr
    made = pods([one for one in yaml.load_all(done.stdout, Loader=LOADER) if one])
    for name in ("generator", "evaluator"):
        pod = made[f"seal-{name}"]
        told = environment(pod)
        assert (told["SEAL_BACKEND"], told["SEAL_MAX_RANK"]) == ("vllm", "160")
        (mount,) = (one for one in container(pod)["volumeMounts"] if one["mountPath"] == "/dev/shm")
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])
        assert volume["emptyDir"]["medium"] == "Memory"
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "SEAL_BACKEND" not in environment(made["seal-trainer"])


def test_the_route_that_the_page_shows_leads_to_a_port_of_the_front_door() -> None:
    route = shown("apiVersion: gateway.networking.k8s.io/v1")
    services = of_kind(render(namespace=route["metadata"]["namespace"]), "Service")
    for rule in route["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            ports = {port["port"] for port in services[backend["name"]]["spec"]["ports"]}
            assert backend["port"] in ports
