"""A stage's attempt as an Indexed Job: pure, from what is to be started to the object's body.

Who tries again is said here, once. Kubernetes retries an index whose pod ended with 43, or was
killed for memory, as often as local mode does; an index that ended with 2 or 42 it gives up at
once; a pod that a node took with it (drained, pre-empted, lost) is replaced and counts for nothing.
A pod is replaced once it has gone, so that never two work on one shard. The others go on, as in
local mode, until so many have failed that it is no accident.

The pause before an attempt (`StartStage.delay_seconds`) is no part of the Job: whoever creates it
waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from controller_svc.core import SHARD_ATTEMPTS, StartStage, spec_digest
from controller_svc.k8s.job_settings import (
    MODELS_VOLUME,
    SCRATCH_VOLUME,
    STORE_VOLUME,
    JobSettings,
    PodSettings,
)
from controller_svc.k8s.placement import placed
from seal.errors import PERMANENT_EXIT_CODES, RETRY_EXIT_CODE
from seal.records import Stage
from seal.resources import API_VERSION
from seal.rpc.hops import TRACE_VARIABLES, Hop
from seal.settings import Settings, Spec
from seal.settings.cluster import ClusterSettings, JobTemplate
from seal.settings.resources import ResourceSettings
from seal.yaml_files import Tree

FAILED_SHARDS_SHARE = 0.25
"""Share of failed shards from which on the rest is stopped: it would go the same way."""
KILLED_EXIT_CODE = 137
"""SIGKILL, which is how the kernel takes back memory."""
CONTAINER = "worker"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
INDEX = "$(JOB_COMPLETION_INDEX)"
"""In a pod's arguments: Kubernetes sets the variable in pods of Indexed Jobs, and puts it in."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RUN_LABEL, ROUND_LABEL, STAGE_LABEL = "seal.dev/run", "seal.dev/round", "seal.dev/stage"
SPEC_ANNOTATION, EPOCH_ANNOTATION = "seal.dev/spec-sha256", "seal.dev/epoch"
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
"""Where a pod whose root is read-only puts temporary files, and copies from an object store."""
_Options = dict[str, str | int]
"""By field of a process's options; True stands for a switch."""
_COMMANDS = {"worker": "controller_svc.worker", "trainer": "trainer_svc.improve"}


class Owner(Settings):
    """The object that a Job belongs to, and goes with."""

    kind: str
    name: str
    namespace: str
    uid: str

    @property
    def reference(self) -> Tree:
        """As Kubernetes' garbage collector reads it."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def stage_job(
    action: StartStage,
    *,
    spec: Spec,
    cluster: ClusterSettings,
    owner: Owner,
    settings: JobSettings,
    hop: Hop | None = None,
) -> Tree:
    """The Job of one attempt of a stage. `hop`: the trace that it belongs to."""
    additions = settings.pods(action.stage).additions
    labels = additions.labels | _labels(action, owner)
    queue_name = cluster.queue_name or settings.queue_name
    queue = {QUEUE_LABEL: queue_name} if queue_name else {}
    metadata: Tree = {
        "name": action.name,
        "namespace": owner.namespace,
        "labels": labels | queue,
        "annotations": {SPEC_ANNOTATION: spec_digest(spec), EPOCH_ANNOTATION: str(action.epoch)},
        "ownerReferences": [owner.reference],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": action.shards,
            "parallelism": min(action.shards, settings.parallelism),
            "backoffLimitPerIndex": SHARD_ATTEMPTS - 1,
            "maxFailedIndexes": math.ceil(FAILED_SHARDS_SHARE * action.shards),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "activeDeadlineSeconds": settings.deadline_seconds,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "template": {
                "metadata": {"labels": labels}
                | ({"annotations": additions.annotations} if additions.annotations else {}),
                "spec": _pod(action, spec, cluster.job_template, settings, hop),
            },
        },
    }


def _failure_rules() -> list[Tree]:
    """The first that fits counts: a worker that a drained node stops ends with 43, too."""
    ignored: Tree = {"type": "DisruptionTarget", "status": "True"}
    return [
        {"action": "Ignore", "onPodConditions": [ignored]},
        _by_exit_code("FailIndex", PERMANENT_EXIT_CODES),
        _by_exit_code("Count", (RETRY_EXIT_CODE, KILLED_EXIT_CODE)),
    ]


def _by_exit_code(action: str, codes: tuple[int, ...]) -> Tree:
    values: Tree = {"containerName": CONTAINER, "operator": "In", "values": list(codes)}
    return {"action": action, "onExitCodes": values}


def _component(stage: Stage) -> str:
    return "trainer" if stage is Stage.IMPROVE else "worker"


def _labels(action: StartStage, owner: Owner) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "seal",
        "app.kubernetes.io/component": _component(action.stage),
        "app.kubernetes.io/part-of": "seal",
        "app.kubernetes.io/managed-by": "seal-controller",
        RUN_LABEL: owner.name,
        ROUND_LABEL: str(action.round),
        STAGE_LABEL: str(action.stage),
    }


def _pod(
    action: StartStage,
    spec: Spec,
    template: JobTemplate,
    settings: JobSettings,
    hop: Hop | None,
) -> Tree:
    """A pod that Pod Security `restricted` admits."""
    placement = settings.pods(action.stage).placement
    secrets: Tree = {"imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets]}
    pod: Tree = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        | settings.pod_security_context.model_dump(mode="json", by_alias=True, exclude_none=True),
        "containers": [_container(action, spec, template, settings, hop)],
        "volumes": _volumes(action, settings),
    }
    return pod | (secrets if settings.image_pull_secrets else {}) | placed(placement, template)


def _container(
    action: StartStage,
    spec: Spec,
    template: JobTemplate,
    settings: JobSettings,
    hop: Hop | None,
) -> Tree:
    trains = action.stage is Stage.IMPROVE
    own = settings.pods(action.stage)
    given = own.environment
    resources = _resources(action.stage, own, template)
    options = _of_trainer(spec, settings) if trains else settings.services.model_dump(mode="json")
    options |= {"artifacts": settings.store.uri, "log_format": "json"}
    environment = _environment(given, hop)
    if trains and "cpu" in resources.limits and "SEAL_THREADS" not in given:
        # An engine takes the pod's cores, where they are limited, and not all of the node's
        field: Tree = {"containerName": CONTAINER, "resource": "limits.cpu"}
        environment.append({"name": "SEAL_THREADS", "valueFrom": {"resourceFieldRef": field}})
    container: Tree = {
        "name": CONTAINER,
        "image": own.image,
        "command": ["python", "-m", _COMMANDS[_component(action.stage)]],
        "args": _flags(_task(action) | options, given),
        "env": environment,
        "resources": resources.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(action, settings),
    }
    if settings.image_pull_policy is not None:
        container["imagePullPolicy"] = settings.image_pull_policy
    if settings.store.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.store.credentials_secret}}]
    return container


def _resources(stage: Stage, own: PodSettings, template: JobTemplate) -> ResourceSettings:
    """A run says those of its M-step, all of them or none."""
    asked = template.resources
    return asked if stage is Stage.IMPROVE and (asked.requests or asked.limits) else own.resources


def _task(action: StartStage) -> _Options:
    """The task, as options of the entry point of its stage."""
    policy = action.policy
    own: _Options = {"stage": str(action.stage), "shards": action.shards, "shard": INDEX}
    return ({} if action.stage is Stage.IMPROVE else own) | {
        "run": action.run,
        "round": action.round,
        "attempt": action.attempt,
        "epoch": action.epoch,
        "policy_path": policy.path if policy else "",
        "policy_sha256": policy.sha256 if policy else "",
    }


def _of_trainer(spec: Spec, settings: JobSettings) -> _Options:
    cache = settings.models.mount_path if settings.models is not None else ""
    return {"model": spec.writer, "offline": True, "model_cache": cache}


def _flags(options: _Options, given: Mapping[str, str]) -> list[str]:
    """Options as flags, but for texts that are empty and what the settings' variables name.

    Not as variables: of these the API server keeps each one's fields apart, for a Job and for its
    pods, whoever writes to either of them.
    """
    named = {
        f"--{name.replace('_', '-')}": value
        for name, value in options.items()
        if value != "" and f"SEAL_{name.upper()}" not in given
    }
    return [flag if value is True else f"{flag}={value}" for flag, value in named.items()]


def _environment(given: Mapping[str, str], hop: Hop | None) -> list[Tree]:
    """What is no option of the entry points, and what the settings say."""
    values = {"SEAL_CACHE": f"{SCRATCH}/seal"}
    if hop is not None:
        told = dict(hop.metadata)
        values |= {name: told.get(key, "") for name, key in TRACE_VARIABLES.items()}
    return _plain({name: value for name, value in values.items() if value} | dict(given))


def _plain(values: Mapping[str, str]) -> list[Tree]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _volumes(action: StartStage, settings: JobSettings) -> list[Tree]:
    """A read-only root needs somewhere to put temporary files."""
    limit = settings.temporary_size_limit
    scratch: Tree = {"sizeLimit": limit} if limit else {}
    volumes: list[Tree] = [{"name": SCRATCH_VOLUME, "emptyDir": scratch}]
    if settings.store.claim_name:
        claim: Tree = {"claimName": settings.store.claim_name}
        volumes.append({"name": STORE_VOLUME, "persistentVolumeClaim": claim})
    if action.stage is Stage.IMPROVE and settings.models is not None:
        claim = {"claimName": settings.models.claim_name, "readOnly": True}
        volumes.append({"name": MODELS_VOLUME, "persistentVolumeClaim": claim})
    return [*volumes, *settings.pods(action.stage).additions.volumes]


def _mounts(action: StartStage, settings: JobSettings) -> list[Tree]:
    mounts: list[Tree] = [{"name": SCRATCH_VOLUME, "mountPath": SCRATCH}]
    if settings.store.claim_name:
        mounts.append({"name": STORE_VOLUME, "mountPath": settings.store.mount_path})
    if action.stage is Stage.IMPROVE and (models := settings.models) is not None:
        mounts.append({"name": MODELS_VOLUME, "mountPath": models.mount_path, "readOnly": True})
    return [*mounts, *settings.pods(action.stage).additions.volume_mounts]
