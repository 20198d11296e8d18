"""What the chart makes of its values, and that the processes know what it tells them."""

from __future__ import annotations

import json
import subprocess
from decimal import Decimal

import pytest
import yaml
from chart import (
    CHART,
    SERVICES,
    Object,
    container,
    environment,
    helm,
    jobs_file,
    of_kind,
    pods,
    render,
    template,
)
from pydantic.alias_generators import to_camel

from controller_svc.k8s.jobs import JobSettings
from seal.settings import EngineSettings
from seal.settings.cluster import AdaptationClusterSettings

KIND = f"--values={CHART / 'values-kind.yaml'}"
VOLUME = "--set=models.source=volume"
S3_URI = "s3://bucket/seal"
S3 = (f"--set=artifacts.uri={S3_URI}", "--set=artifacts.existingSecret=s3")
VALUES = {
    "defaults": (),
    "kind": (KIND,),
    "gpu": (
        VOLUME,
        *S3,
        "--set=engine.device=cuda,engine.memoryBytes=34359738368,trainer.engine.slots=8",
        "--set-json=trainer.tolerations=[{\"key\": \"nvidia.com/gpu\", \"operator\": \"Exists\"}]",
        "--set=trainer.nodeSelector.pool=gpu,image.pullSecrets={registry},rbac.kserve=true",
        "--set=api.adaptations.queueName=gpus",
        "--set=controller.namespaces={a,b}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", ["helm", "helm3"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_to_complain_of(values: tuple[str, ...], program: str) -> None:
    command = [str(helm(program)), "lint", "--strict", str(CHART), *values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("trainer.replica=2", "replica"),
        ("engine.maxRowToken=512", "maxRowToken"),
        ("artifacts.uri=http://bucket", "uri"),
        ("jobs.parallelism=0", "parallelism"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, named: str) -> None:
    done = template("--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_every_value_has_its_place_in_the_schema() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    assert set(schema["definitions"]["engine"]["properties"]) == {
        to_camel(name) for name in EngineSettings.model_fields
    }


def test_a_change_of_the_jobs_settings_starts_another_controller() -> None:
    def annotations(*values: str) -> Object:
        return pods(render(*values))["seal-controller"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations("--set=jobs.parallelism=3") != annotations()


def test_what_every_submitted_adaptation_gets_is_a_file_of_the_front_door() -> None:
    kserve = {"name": "qwen", "modelUri": "hf://o/m", "storeUri": "pvc://artifacts"}
    given = {"publish": {"kserve": kserve}, "ttlSecondsAfterFinished": 604800}
    made = render(f"--set-json=api.adaptations={json.dumps(given)}")
    pod = pods(made)["seal-api"]
    variable = environment(pod)["SEAL_ADAPTATIONS_FILE"]
    folder, _, file = variable.rpartition("/")
    text = of_kind(made, "ConfigMap")["seal-api"]["data"][file]
    read = AdaptationClusterSettings.model_validate(yaml.safe_load(text))
    assert read.model_dump(mode="json", exclude_unset=True) == given
    mounts = {one["mountPath"]: one["name"] for one in container(pod)["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert volumes[mounts[folder]]["configMap"]["name"] == "seal-api"
    # It is read once: a change starts another front door
    assert pod["metadata"] != pods(render())["seal-api"]["metadata"]
    assert "SEAL_ADAPTATIONS_FILE" not in environment(pods(render())["seal-api"])


def test_large_numbers_stay_numbers() -> None:
    pod = pods(render('--set-json=engine={"memoryBytes": 34359738368, "stallSeconds": 0.5}'))
    given = environment(pod["seal-trainer"])
    assert given["SEAL_MEMORY_BYTES"] == "34359738368"
    assert given["SEAL_STALL_SECONDS"] == "0.5"


def test_a_services_own_engine_wins_also_with_a_zero() -> None:
    made = pods(render("--set=engine.slots=4,engine.maxRank=8,evaluator.engine.slots=0"))
    assert environment(made["seal-trainer"])["SEAL_SLOTS"] == "4"
    assert environment(made["seal-evaluator"])["SEAL_SLOTS"] == "0"
    assert environment(made["seal-evaluator"])["SEAL_MAX_RANK"] == "8"


def test_an_engine_computes_with_the_threads_that_its_container_may_use() -> None:
    assert environment(pods(render())["seal-trainer"])["SEAL_THREADS"] == "limits.cpu"
    without = render("--set=trainer.resources.limits.cpu=null")
    assert "SEAL_THREADS" not in environment(pods(without)["seal-trainer"])
    given = render("--set=trainer.engine.threads=3")
    assert environment(pods(given)["seal-trainer"])["SEAL_THREADS"] == "3"


def test_the_requests_of_a_laptops_cluster_fit_two_cores() -> None:
    made = render(KIND)
    standing = [container(pod)["resources"] for pod in pods(made).values()]
    settings = JobSettings.model_validate(jobs_file(made))
    workers = [settings.worker_resources.requests] * settings.parallelism
    for of_jobs in (workers, [settings.trainer_resources.requests]):
        asked = [one["requests"] for one in standing] + of_jobs
        assert sum(cores(str(one["cpu"])) for one in asked) <= Decimal("1.5")


def cores(quantity: str) -> Decimal:
    return Decimal(quantity[:-1]) / 1000 if quantity.endswith("m") else Decimal(quantity)


def test_only_what_writes_may_write_to_the_store() -> None:
    def may_write(component: str) -> bool:
        mounts = {one["name"]: one for one in container(made[f"seal-{component}"])["volumeMounts"]}
        return not mounts["artifacts"].get("readOnly", False)

    made = pods(render())
    assert [name for name in SERVICES if may_write(name)] == ["trainer"]
    assert may_write("controller")
    assert may_write("api")


def test_an_object_store_needs_no_volume_and_its_secret_goes_to_every_process() -> None:
    made = render(*S3)
    assert not of_kind(made, "PersistentVolumeClaim")
    for pod in pods(made).values():
        assert container(pod)["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert "artifacts" not in {one["name"] for one in pod["spec"]["volumes"]}
    assert jobs_file(made)["store"] == {"uri": S3_URI, "credentialsSecret": "s3"}


def test_a_volume_of_models_is_filled_by_a_job_that_another_model_replaces() -> None:
    def job(*values: str) -> tuple[str, Object]:
        ((name, made),) = of_kind(render(VOLUME, *values), "Job").items()
        return name, container(made["spec"]["template"])

    name, pull = job()
    assert pull["command"] == ["seal", "models", "pull", "smollm2-135m", "--to", "/models"]
    assert job()[0] == name
    assert job("--set=model=hf://org/other")[0] != name
    assert not of_kind(render(VOLUME, "--set=models.volume.pull.enabled=false"), "Job")


def test_every_namespace_that_is_served_has_a_role_and_an_account_for_its_jobs() -> None:
    made = render("--set=controller.namespaces={a,b}")
    roles = {(one["metadata"].get("namespace"), one["metadata"]["name"]) for one in made
             if one["kind"] == "Role"}  # fmt: skip
    assert roles == {(ns, f"seal-{name}") for ns in "ab" for name in ("controller", "api")} | {
        (None, "seal-lease")
    }
    accounts = [one["metadata"] for one in made if one["kind"] == "ServiceAccount"]
    assert {one["namespace"] for one in accounts if one["name"] == "seal-jobs"} == {"a", "b"}
    served = environment(pods(made)["seal-controller"])["SEAL_NAMESPACES"]
    assert served == environment(pods(made)["seal-api"])["SEAL_NAMESPACES"] == "a,b"
