"""A stage's attempt as a Job: who tries again, what its pods get, and what they may not do."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from pydantic import ValidationError

from controller_svc.core import StartStage, spec_digest
from controller_svc.k8s.job_settings import (
    TASK_VARIABLES,
    JobSettings,
    ModelVolume,
    PodSettings,
    StoreAccess,
    TrainerPodSettings,
)
from controller_svc.k8s.jobs import QUEUE_LABEL, Owner, stage_job
from controller_svc.worker.__main__ import WorkerOptions
from controller_svc.worker.settings import ServiceAddresses
from seal.errors import ERROR_CLASSES
from seal.names import stage_name
from seal.records import AdapterReference, Stage
from seal.rpc.hops import Hop
from seal.settings import RunSpec
from seal.settings.cluster import ClusterSettings
from trainer_svc.improve import ImproveOptions

OWNER = Owner(kind="RestEMRun", name="demo", namespace="team", uid="u-1")
POLICY = AdapterReference(path="adapters/abc", sha256="a" * 64)
SETTINGS = JobSettings(
    worker=PodSettings(image="seal:1"),
    trainer=TrainerPodSettings(image="seal-trainer:1"),
    services=ServiceAddresses(generator="g:1", trainer="t:1", evaluator="e:1"),
    store=StoreAccess(uri="file:///artifacts", claim_name="artifacts"),
    models=ModelVolume(claim_name="models"),
    service_account="seal-worker",
    temporary_size_limit="8Gi",
)
CLUSTER = ClusterSettings.model_validate(
    {
        "queueName": "gpus",
        "jobTemplate": {
            "resources": {"limits": {"cpu": 4, "nvidia.com/gpu": 1}},
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priorityClassName": "low",
        },
    }
)


def job(
    stage: Stage = Stage.ROLLOUT,
    *,
    shards: int = 5,
    cluster: ClusterSettings = CLUSTER,
    settings: JobSettings = SETTINGS,
    hop: Hop | None = None,
    name: str = "demo-r1-a1",
) -> Any:
    action = StartStage(
        name=name,
        run="demo-1f",
        stage=stage,
        round=1,
        shards=shards,
        attempt=2,
        epoch=7,
        policy=POLICY,
    )
    return stage_job(
        action, spec=RunSpec(), cluster=cluster, owner=OWNER, settings=settings, hop=hop
    )


def with_pods(kind: str, **given: object) -> JobSettings:
    """The settings with something of the pods of one kind, as the controller's file has it."""
    settings = SETTINGS.model_dump(by_alias=True)
    return JobSettings.model_validate(settings | {kind: settings[kind] | given})


def pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def arguments(job: Any, *, index: int = 0) -> list[str]:
    """Of an index's pod, as Kubernetes fills them in."""
    given = pod(job)["containers"][0]["args"]
    return [one.replace("$(JOB_COMPLETION_INDEX)", str(index)) for one in given]


def environment(job: Any) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod(job)["containers"][0]["env"]}


def read_and_written(body: Any) -> Any:
    """What the fields that Kubernetes knows leave of a Job."""
    api = client.ApiClient()
    read = api.deserialize(SimpleNamespace(data=json.dumps(body)), "V1Job")
    return api.sanitize_for_serialization(read)


@pytest.mark.parametrize("stage", list(Stage))
def test_every_field_is_one_that_kubernetes_knows(stage: Stage) -> None:
    body = job(stage, settings=SETTINGS.model_copy(update={"image_pull_secrets": ("pull",)}))
    assert read_and_written(body) == body


def test_every_exit_code_of_the_project_has_a_rule_and_a_lost_node_costs_no_attempt() -> None:
    spec = job()["spec"]
    ignore, *by_code = spec["podFailurePolicy"]["rules"]
    assert ignore["action"] == "Ignore"
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    action = {code: rule["action"] for rule in by_code for code in rule["onExitCodes"]["values"]}
    for row in ERROR_CLASSES.values():
        retried = row.reason in ("Transient", "Exhausted")
        assert action[row.exit_code] == ("Count" if retried else "FailIndex")
    assert set(action) == {2, 42, 43, 137}
    assert spec["podReplacementPolicy"] == "Failed"
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 5, 5)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, math.ceil(5 / 4))
    assert spec["ttlSecondsAfterFinished"] >= 60 and spec["activeDeadlineSeconds"] > 0
    assert job(shards=40)["spec"]["parallelism"] == SETTINGS.parallelism


def test_a_job_belongs_to_its_run_says_what_it_is_and_stands_in_its_queue() -> None:
    body = job()
    metadata = body["metadata"]
    (reference,) = metadata["ownerReferences"]
    assert reference["controller"] and reference["uid"] == "u-1"
    labels = metadata["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert (labels["seal.dev/run"], labels["seal.dev/round"]) == ("demo", "1")
    assert labels["seal.dev/stage"] == "rollout"
    assert labels["app.kubernetes.io/name"] == "seal"
    in_pod = body["spec"]["template"]["metadata"]["labels"]
    assert in_pod.items() <= labels.items()
    assert not any("queue" in name for name in in_pod), "Kueue would admit the pods once more"
    assert metadata["annotations"]["seal.dev/spec-sha256"] == spec_digest(RunSpec())
    assert not any("queue" in name for name in job(cluster=ClusterSettings())["metadata"]["labels"])


PLACED = {
    "nodeSelector": {"pool": "any", "zone": "a"},
    "tolerations": [
        {"key": "spot", "operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists"},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "seal"}},
                    },
                }
            ]
        },
    },
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
}


def test_a_run_adds_to_the_place_that_the_controller_gives_the_m_step() -> None:
    settings = with_pods("trainer", placement=PLACED).model_copy(update={"queue_name": "shared"})
    body = job(Stage.IMPROVE, settings=settings)
    assert read_and_written(body) == body
    made = pod(body)
    assert made["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert made["tolerations"] == PLACED["tolerations"]
    assert made["affinity"] == PLACED["affinity"]
    assert (made["priorityClassName"], made["runtimeClassName"]) == ("low", "nvidia")
    assert body["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    plain = job(Stage.IMPROVE, settings=settings, cluster=ClusterSettings())
    assert {name: pod(plain)[name] for name in PLACED} == PLACED
    assert plain["metadata"]["labels"][QUEUE_LABEL] == "shared"
    worker = pod(job(Stage.ROLLOUT, settings=settings, cluster=ClusterSettings()))
    assert not worker.keys() & PLACED.keys()


ADDED = {
    "labels": {"team": "research", "seal.dev/run": "another", "app.kubernetes.io/name": "other"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "volumes": [{"name": "ca", "secret": {"secretName": "store-ca"}}],
    "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
}


@pytest.mark.parametrize(
    ("kind", "stage", "other"),
    [("worker", Stage.ROLLOUT, Stage.IMPROVE), ("trainer", Stage.IMPROVE, Stage.ROLLOUT)],
)
def test_an_installation_adds_to_jobs_and_replaces_nothing_of_the_controllers(
    kind: str, stage: Stage, other: Stage
) -> None:
    settings = with_pods(kind, additions=ADDED)
    plain, made = job(stage), job(stage, settings=settings)
    assert read_and_written(made) == made
    template = made["spec"]["template"]
    for metadata in (made["metadata"], template["metadata"]):
        assert metadata["labels"]["team"] == "research"
    assert template["metadata"]["labels"] == {
        "team": "research",
        **plain["spec"]["template"]["metadata"]["labels"],
    }
    assert template["metadata"]["annotations"] == ADDED["annotations"]
    assert pod(made)["volumes"] == [*pod(plain)["volumes"], *ADDED["volumes"]]
    mounts = pod(made)["containers"][0]["volumeMounts"]
    assert mounts == [*pod(plain)["containers"][0]["volumeMounts"], *ADDED["volumeMounts"]]
    assert job(other, settings=settings) == job(other)


@pytest.mark.parametrize("name", ["tmp", "artifacts", "models"])
def test_no_volume_of_an_installation_has_the_name_of_one_of_the_controllers(name: str) -> None:
    added = {"volumes": [{"name": name, "emptyDir": {}}]}
    with pytest.raises(ValidationError, match=f"volumes: {name}: the controller has these itself"):
        with_pods("worker", additions=added)


@pytest.mark.parametrize("stage", list(Stage))
def test_every_pod_fits_the_restricted_pod_security_standard(stage: Stage) -> None:
    body = pod(job(stage))
    (container,) = body["containers"]
    assert body["securityContext"]["runAsNonRoot"] and body["securityContext"]["runAsUser"] > 0
    assert body["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert body["automountServiceAccountToken"] is False
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}} in body["volumes"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in body["volumes"]}
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.IMPROVE])
def test_the_worker_reads_from_its_flags_the_task_that_was_meant(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hop = Hop("r", f"00-{'a' * 32}-{'b' * 16}-01")
    name = stage_name(run="demo-1f", round=1, stage=stage, attempt=2)
    body = job(stage, hop=hop, name=name)
    (container,) = pod(body)["containers"]
    assert container["command"] == ["python", "-m", "controller_svc.worker"]
    assert container["image"] == "seal:1"
    assert "models" not in str(pod(body)["volumes"]), "a worker holds no model"
    assert "nvidia.com/gpu" not in str(container["resources"])
    options = WorkerOptions.parse(arguments(body, index=3))
    task = options.task
    assert (task.name, task.run, task.stage) == (f"{name}-3", "demo-1f", stage)
    assert (task.shard, task.shards, task.round, task.attempt, task.epoch) == (3, 5, 1, 2, 7)
    assert task.policy == POLICY
    assert options.part(ServiceAddresses) == SETTINGS.services
    assert environment(body)["TRACEPARENT"] == hop.traceparent
    assert environment(body)["SEAL_REQUEST_ID"] == hop.request_id


def test_the_m_step_has_an_engine_of_its_own_with_the_runs_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = job(Stage.IMPROVE, shards=1)
    (container,) = pod(body)["containers"]
    assert container["command"] == ["python", "-m", "trainer_svc.improve"]
    assert container["image"] == "seal-trainer:1"
    assert container["resources"] == {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}}
    threads = next(one for one in container["env"] if one["name"] == "SEAL_THREADS")
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    assert pod(body)["nodeSelector"] == {"pool": "gpu"}
    assert pod(body)["priorityClassName"] == "low"
    assert pod(body)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    monkeypatch.setenv("SEAL_THREADS", "4")
    options = ImproveOptions.parse(arguments(body))
    task = options.task
    assert (task.run, task.round, task.attempt, task.epoch) == ("demo-1f", 1, 2, 7)
    assert (task.policy, options.model, options.offline) == (POLICY, RunSpec().writer, True)
    assert options.model_cache == "/models", "it is mounted read-only"
    assert environment(body)["SEAL_CACHE"] == "/tmp/seal", "copies from an object store go there"
    fallen_back = pod(job(Stage.IMPROVE, cluster=ClusterSettings()))["containers"][0]
    assert fallen_back["resources"]["limits"] == {"cpu": "1", "memory": "4Gi"}


def test_an_image_is_pulled_as_the_settings_say() -> None:
    assert "imagePullPolicy" not in pod(job())["containers"][0]
    settings = SETTINGS.model_copy(update={"image_pull_policy": "Never"})
    assert pod(job(settings=settings))["containers"][0]["imagePullPolicy"] == "Never"


def test_workers_take_options_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"SEAL_CONCURRENCY": "7", "SEAL_PATIENCE_SECONDS": "5", "SEAL_LOG_FORMAT": "console"}
    settings = with_pods("worker", environment=own)
    body = job(settings=settings)
    for variable, value in environment(body).items():
        monkeypatch.setenv(variable, value)
    options = WorkerOptions.parse(arguments(body))
    assert (options.concurrency, options.patience_seconds) == (7, 5.0)
    assert options.log_format == "console", "no flag says otherwise"
    assert not own.keys() & environment(job(Stage.IMPROVE, settings=settings)).keys()


@pytest.mark.parametrize("kind", ["worker", "trainer"])
def test_no_variable_of_the_settings_names_another_task(kind: str) -> None:
    told = {
        f"SEAL_{flag.removeprefix('--').partition('=')[0].replace('-', '_').upper()}"
        for flag in pod(job())["containers"][0]["args"]
    }
    options = told - {f"SEAL_{name.upper()}" for name in ServiceAddresses.model_fields}
    assert options - {"SEAL_ARTIFACTS", "SEAL_LOG_FORMAT"} == TASK_VARIABLES
    for variable in TASK_VARIABLES:
        with pytest.raises(ValidationError, match=f"{variable}: a Job's task is the controller's"):
            with_pods(kind, environment={variable: "1"})


def test_an_object_store_needs_no_volume_but_perhaps_credentials() -> None:
    store = StoreAccess(uri="s3://bucket/seal", credentials_secret="s3")
    body = job(settings=SETTINGS.model_copy(update={"store": store}))
    (container,) = pod(body)["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "persistentVolumeClaim" not in str(pod(body))
    assert "--artifacts=s3://bucket/seal" in container["args"]


@pytest.mark.parametrize("stage", [Stage.ROLLOUT, Stage.IMPROVE])
def test_a_task_is_called_as_the_pod_of_its_job_also_where_the_name_is_cut(stage: Stage) -> None:
    name = stage_name(run="r" * 40, round=123, stage=stage, attempt=1000)
    assert "-improve-" not in name and "-rollout-" not in name
    flags = ("--run", "r" * 40, "--round", "123", "--attempt", "1000", "--artifacts", "memory://x")
    if stage is Stage.IMPROVE:
        assert ImproveOptions.parse([*flags]).task.name == f"{name}-0"
    else:
        addresses = [f"--{name}=localhost:1" for name in ("generator", "trainer", "evaluator")]
        worker = WorkerOptions.parse([*flags, "--stage", str(stage), *addresses])
        assert worker.task.name == f"{name}-0"


def test_the_longest_name_leaves_room_for_an_index_of_four_digits() -> None:
    name = stage_name(run="r" * 40, round=12, stage=Stage.VALIDATE, attempt=1000)
    assert job(name=name)["metadata"]["name"] == name
    assert len(f"{name}-9999") <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
