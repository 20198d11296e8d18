"""What the controller is set to about the Jobs that it makes: the file that the chart writes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from controller_svc.k8s.additions import Additions
from controller_svc.k8s.placement import Placement
from controller_svc.worker.settings import ServiceAddresses
from seal.records import Stage
from seal.settings import FileSettings
from seal.settings.cluster import QUEUE_NAME
from seal.settings.resources import Quantity, ResourceSettings

STORE_VOLUME, MODELS_VOLUME, SCRATCH_VOLUME = "artifacts", "models", "tmp"
TASK_VARIABLES = frozenset(
    f"SEAL_{name}"
    for name in (
        *("RUN", "STAGE", "ROUND", "ATTEMPT", "EPOCH", "SHARDS", "SHARD"),
        *("POLICY_PATH", "POLICY_SHA256"),
    )
)
"""Options of a pod's task, which are the controller's to say."""


class StoreAccess(FileSettings):
    """How pods reach the artifact store."""

    uri: str
    """The store as pods see it: `file:///artifacts`, `s3://bucket/prefix`."""
    claim_name: str = ""
    """PersistentVolumeClaim that holds it; empty for an object store."""
    mount_path: str = "/artifacts"
    """Where that volume is mounted."""
    credentials_secret: str = ""
    """Secret whose keys become environment variables; empty for none."""


class ModelVolume(FileSettings):
    """Where the M-step's engine finds base models."""

    claim_name: str
    """PersistentVolumeClaim with the models, mounted read-only."""
    mount_path: str = "/models"
    """Where it is mounted: a directory of models, as `seal models pull NAME --to DIR` fills it."""


class PodUsers(FileSettings):
    """Whom a pod's processes run as; None leaves it to the cluster, as OpenShift asks."""

    run_as_user: int | None = Field(default=None, ge=1)
    run_as_group: int | None = Field(default=None, ge=1)
    fs_group: int | None = Field(default=None, ge=1)
    """Group of what is on its volumes."""
    fs_group_change_policy: Literal["Always", "OnRootMismatch"] | None = None
    """Whether a pod that starts gives all of a volume to the group, however much that is."""


IMAGES_USER = PodUsers(
    run_as_user=65532,
    run_as_group=65532,
    fs_group=65532,
    fs_group_change_policy="OnRootMismatch",
)
"""As the Dockerfile makes it."""


class PodSettings(FileSettings):
    """What the pods of one kind of stage are made from."""

    image: str
    environment: dict[str, str] = Field(default={})
    """Options of their process as variables: of a worker `SEAL_CONCURRENCY`,
    `SEAL_PATIENCE_SECONDS`; of the M-step's engine `SEAL_DTYPE`, `SEAL_MAX_ROW_TOKENS`."""
    resources: ResourceSettings = ResourceSettings(
        requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"}
    )
    """Of their container."""
    placement: Placement = Placement()
    """Where they run."""
    additions: Additions = Additions()
    """What they and their Jobs have beside the controller's own."""

    @field_validator("environment")
    @classmethod
    def _names_no_task(cls, given: dict[str, str]) -> dict[str, str]:
        if named := sorted(TASK_VARIABLES & given.keys()):
            raise ValueError(f"{', '.join(named)}: a Job's task is the controller's to say")
        return given

    @field_validator("additions")
    @classmethod
    def _names_no_own_volume(cls, given: Additions) -> Additions:
        own = {STORE_VOLUME, MODELS_VOLUME, SCRATCH_VOLUME}
        if named := sorted(own & {str(volume.get("name")) for volume in given.volumes}):
            raise ValueError(f"volumes: {', '.join(named)}: the controller has these itself")
        return given


class TrainerPodSettings(PodSettings):
    """The same of the M-step, which has an engine of its own."""

    resources: ResourceSettings = ResourceSettings(
        requests={"cpu": "1", "memory": "4Gi"}, limits={"cpu": "1", "memory": "4Gi"}
    )
    """Of their container, unless a run's `jobTemplate` has some."""


class JobSettings(FileSettings):
    """What the controller is set to about the Jobs that it makes; camelCase in its file."""

    worker: PodSettings
    """Of all stages but the M-step: clients of the services, without a model."""
    trainer: TrainerPodSettings
    """Of the M-step."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When nodes pull an image; None leaves it to Kubernetes, by the image's tag."""
    services: ServiceAddresses
    store: StoreAccess
    models: ModelVolume | None = None
    """None: the trainer's image holds the models, where its own `SEAL_MODEL_CACHE` says."""
    queue_name: str = Field(default="", max_length=63, pattern=QUEUE_NAME)
    """Kueue's LocalQueue of Jobs whose object names none; empty for none."""
    service_account: str = "default"
    """Of the pods; they get no token of it."""
    image_pull_secrets: tuple[str, ...] = ()
    temporary_size_limit: Quantity | None = None
    """Of the pods' temporary files, and copies from an object store; None: what the node has."""
    pod_security_context: PodUsers = IMAGES_USER
    """Whom their processes run as, all of it: a field that is not given has no default."""
    parallelism: int = Field(default=16, ge=1)
    """Shards of a stage at work at once."""
    deadline_seconds: int = Field(default=24 * 3600, ge=1)
    """An attempt of a stage that takes longer is stopped."""
    ttl_seconds: int = Field(default=3600, ge=60)
    """A finished Job is deleted after so long: longer than it takes to record what it came to."""
    grace_seconds: int = Field(default=60, ge=1)
    """After SIGTERM: how long a pod may take to commit, or to write a checkpoint."""

    def pods(self, stage: Stage) -> PodSettings:
        """Those of a stage."""
        return self.trainer if stage is Stage.IMPROVE else self.worker
