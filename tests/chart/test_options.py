"""What the chart tells the processes is what they can be told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from chart import SERVICES, Object, container, environment, jobs_file, of_kind, pods, render
from pydantic_settings import BaseSettings
from test_chart import VALUES

from controller_svc.k8s.jobs import JobSettings
from evaluator_svc.__main__ import EvaluatorOptions
from generator_svc.options import GeneratorOptions
from trainer_svc.__main__ import TrainerOptions
from trainer_svc.improve import ImproveOptions

OPTIONS: dict[str, type[BaseSettings]] = {
    "generator": GeneratorOptions,
    "trainer": TrainerOptions,
    "evaluator": EvaluatorOptions,
}


@pytest.fixture(params=VALUES.values(), ids=VALUES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """What the chart makes of each set of values."""
    return render(*request.param)


@pytest.mark.parametrize("component", OPTIONS)
def test_every_variable_of_a_process_is_one_of_its_options(
    component: str, objects: list[Object]
) -> None:
    given = environment(pods(objects)[f"seal-{component}"])
    options = {f"SEAL_{name.upper()}" for name in OPTIONS[component].model_fields}
    assert given.keys() <= options


@pytest.mark.parametrize("component", OPTIONS)
def test_a_process_accepts_what_the_chart_tells_it(
    component: str, objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(pods(objects)[f"seal-{component}"])
    for name, value in given.items():
        monkeypatch.setenv(name, "2" if value == "limits.cpu" else value)
    read = OPTIONS[component].parse([])
    assert read.address.startswith("0.0.0.0:")
    ports = {one["name"]: one["containerPort"] for one in ports_of(objects, component)}
    assert ports == {"grpc": int(read.address.rpartition(":")[2]), "metrics": read.metrics_port}


def ports_of(objects: list[Object], component: str) -> list[Mapping[str, object]]:
    return container(pods(objects)[f"seal-{component}"])["ports"]


def test_the_controllers_settings_are_those_that_it_reads(objects: list[Object]) -> None:
    settings = JobSettings.model_validate(jobs_file(objects))
    services = of_kind(objects, "Service")
    for component in SERVICES:
        address = getattr(settings.services, component)
        host, _, port = address.removeprefix("dns:///").partition(":")
        assert host == f"seal-{component}.team.svc"
        assert int(port) == services[f"seal-{component}"]["spec"]["ports"][0]["port"]
    options = {f"SEAL_{name.upper()}" for name in ImproveOptions.model_fields}
    assert settings.trainer_environment.keys() <= options
    accounts = [one for one in objects if one["kind"] == "ServiceAccount"]
    assert settings.service_account in {one["metadata"]["name"] for one in accounts}
