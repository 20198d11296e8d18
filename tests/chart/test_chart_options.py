"""What the chart tells the processes is what they can be told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from chart import SERVICES, Object, container, environment, jobs_file, of_kind, pods, render
from test_chart import VALUES

from controller_svc.api.__main__ import FrontDoorOptions
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.options import ControllerOptions
from controller_svc.worker.__main__ import WorkerOptions
from evaluator_svc.__main__ import EvaluatorOptions
from generator_svc.options import GeneratorOptions
from seal.options import ProcessOptions, ServerOptions
from seal.rpc.tracing import ENDPOINT_VARIABLES
from trainer_svc.__main__ import TrainerOptions
from trainer_svc.improve import ImproveOptions

OPTIONS: dict[str, type[ProcessOptions]] = {
    "controller": ControllerOptions,
    "api": FrontDoorOptions,
    "generator": GeneratorOptions,
    "trainer": TrainerOptions,
    "evaluator": EvaluatorOptions,
}

OTHERS = {*ENDPOINT_VARIABLES, "HTTPS_PROXY"}
"""Variables that are no options: where traces go, and what the values have set for all."""


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
    assert given.keys() <= options | OTHERS


@pytest.mark.parametrize("component", OPTIONS)
def test_a_process_accepts_what_the_chart_tells_it(
    component: str, objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(pods(objects)[f"seal-{component}"])
    for name, value in given.items():
        monkeypatch.setenv(name, "2" if value == "limits.cpu" else value)
    read = OPTIONS[component].parse([])
    declared = container(pods(objects)[f"seal-{component}"])["ports"]
    assert {one["name"]: one["containerPort"] for one in declared} == ports(read)


def ports(read: ProcessOptions) -> dict[str, int]:
    """The ports that a process listens on, for others than itself."""
    if isinstance(read, ControllerOptions):
        return {"metrics": read.metrics_port, "health": read.health_port}
    assert isinstance(read, ServerOptions)
    host, _, port = read.address.rpartition(":")
    assert host == "0.0.0.0"
    return {"grpc": int(port), "metrics": read.metrics_port}


def test_the_controller_reads_the_file_that_the_chart_writes(
    objects: list[Object], tmp_path: Path
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(yaml.safe_dump(jobs_file(objects)))
    command = ["--jobs-file", str(file), "--artifacts", str(tmp_path)]
    told = environment(pods(objects)["seal-controller"])["SEAL_ARTIFACTS"]
    assert ControllerOptions.parse(command).jobs().store.uri == told


def test_the_controllers_settings_are_those_that_it_reads(objects: list[Object]) -> None:
    settings = JobSettings.model_validate(jobs_file(objects))
    services = of_kind(objects, "Service")
    for component in SERVICES:
        address = getattr(settings.services, component)
        host, _, port = address.removeprefix("dns:///").partition(":")
        assert host == f"seal-{component}.team.svc"
        assert int(port) == services[f"seal-{component}"]["spec"]["ports"][0]["port"]
    for given, kind in (
        (settings.trainer.environment, ImproveOptions),
        (settings.worker.environment, WorkerOptions),
    ):
        options = {f"SEAL_{name.upper()}" for name in kind.model_fields}
        assert given.keys() <= options | OTHERS
    accounts = [one for one in objects if one["kind"] == "ServiceAccount"]
    assert settings.service_account in {one["metadata"]["name"] for one in accounts}
