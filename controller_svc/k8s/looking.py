"""What a Job and what belongs to it say of a stage's attempt: pure, from objects to observations.

A stage has ended by its Job's condition alone: pods come and go, and one that cannot be seen has
not failed. Why a shard failed stands in its pod's termination message; why nothing happens stands
in Kueue's Workload, in a container that waits, in a pod that no node takes, or, where there is no
pod at all, in the Job's events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from controller_svc.core import FailedIndex, StageObserved, parse_ranges
from controller_svc.k8s.jobs import CONTAINER, INDEX_ANNOTATION, QUEUE_LABEL
from seal.termination import Termination, read_termination

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_STARTING_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})
_BEGINNING = datetime.min.replace(tzinfo=UTC)


class WaitReason(StrEnum):
    """Why an attempt does not get on. They are API."""

    NOT_ADMITTED = "NotAdmitted"
    """Kueue has not admitted its Workload."""
    SUSPENDED = "Suspended"
    """Somebody has suspended the Job."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota refuses its pods."""
    POD_SECURITY = "PodSecurity"
    """The namespace's Pod Security standard refuses its pods."""
    SERVICE_ACCOUNT_MISSING = "ServiceAccountMissing"
    """The pods' service account does not exist."""
    POD_REFUSED = "PodRefused"
    """The API server refuses its pods for another reason."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """The image cannot be pulled."""
    CONTAINER_NOT_STARTED = "ContainerNotStarted"
    """The container cannot be made, for example for lack of a secret."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes a pod: too few resources, or a volume that is not there."""
    SERVICES_UNAVAILABLE = "ServicesUnavailable"
    """A service that the stage calls does not answer, or is not ready."""


_REFUSALS = (
    ("exceeded quota", WaitReason.QUOTA_EXCEEDED),
    ("failed quota", WaitReason.QUOTA_EXCEEDED),
    ("violates PodSecurity", WaitReason.POD_SECURITY),
    ("serviceaccount", WaitReason.SERVICE_ACCOUNT_MISSING),
)
"""Words of the API server's refusals."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why an attempt does not get on."""

    reason: WaitReason
    message: str
    """For people."""


class _Seen(BaseModel):
    """Base of what is read of an object; the rest of it is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ConditionSeen(_Seen):
    """One condition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: AwareDatetime = _BEGINNING

    @field_validator("last_transition_time", mode="before")
    @classmethod
    def _or_the_beginning(cls, given: object) -> object:
        """Kubernetes writes null for a time that nobody has set."""
        return given or _BEGINNING


class OwnerSeen(_Seen):
    """What an object belongs to."""

    uid: str = ""
    controller: bool = False


class MetadataSeen(_Seen):
    """Whose it is and since when."""

    name: str = ""
    uid: str = ""
    owner_references: tuple[OwnerSeen, ...] = ()
    deletion_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: AwareDatetime = _BEGINNING


class _JobSpec(_Seen):
    suspend: bool = False
    completions: int = 1
    parallelism: int = 1


class _JobStatus(_Seen):
    conditions: tuple[ConditionSeen, ...] = ()
    start_time: AwareDatetime | None = None
    active: int = 0
    ready: int = 0
    completed_indexes: str = ""
    failed_indexes: str = ""


class JobSeen(_Seen):
    """A Job."""

    metadata: MetadataSeen
    spec: _JobSpec = _JobSpec()
    status: _JobStatus = _JobStatus()

    @property
    def end(self) -> ConditionSeen | None:
        """The condition with which it ended; None while it has not."""
        return next(_true(self.status.conditions, "Complete", "Failed"), None)

    @property
    def missing(self) -> int:
        """Pods fewer than there should be."""
        indexes = parse_ranges(self.status.completed_indexes)
        done = len(indexes | parse_ranges(self.status.failed_indexes))
        return min(self.spec.parallelism, self.spec.completions - done) - self.status.active

    @property
    def idle(self) -> bool:
        """Whether it has not ended and pods are missing, or not at work."""
        return self.end is None and (self.missing > 0 or self.status.ready < self.status.active)

    def age_seconds(self, now_seconds: float) -> float:
        """Since it was created; less than 0 if the server's clock is ahead."""
        return now_seconds - self.metadata.creation_timestamp.timestamp()

    def seconds(self, now_seconds: float) -> float:
        """Since it began, or went on after a suspension; 0 if it has not."""
        begin = self.status.start_time
        return max(0.0, now_seconds - begin.timestamp()) if begin is not None else 0.0


class _WaitingState(_Seen):
    reason: str = ""
    message: str = ""


class _TerminatedState(_Seen):
    exit_code: int
    reason: str = ""
    message: str = ""


class _State(_Seen):
    waiting: _WaitingState | None = None
    terminated: _TerminatedState | None = None


class _ContainerStatus(_Seen):
    name: str = ""
    image: str = ""
    state: _State = _State()


class _PodStatus(_Seen):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[ConditionSeen, ...] = ()
    container_statuses: tuple[_ContainerStatus, ...] = ()
    init_container_statuses: tuple[_ContainerStatus, ...] = ()
    """Of what a mesh or an agent has put before the worker."""


class PodSeen(_Seen):
    """A pod of a Job."""

    metadata: MetadataSeen
    status: _PodStatus = _PodStatus()

    @property
    def index(self) -> int | None:
        """Its index of the Job; None if it has none."""
        text = self.metadata.annotations.get(INDEX_ANNOTATION, "")
        return int(text) if text.isdecimal() else None


class EventSeen(_Seen):
    """An event of a Job."""

    reason: str = ""
    message: str = ""
    event_time: AwareDatetime | None = None
    last_timestamp: AwareDatetime | None = None

    @property
    def when(self) -> datetime:
        """When it last happened."""
        return self.last_timestamp or self.event_time or _BEGINNING


class _WorkloadStatus(_Seen):
    conditions: tuple[ConditionSeen, ...] = Field(default=())


class WorkloadSeen(_Seen):
    """Kueue's Workload of a Job."""

    status: _WorkloadStatus = _WorkloadStatus()


def observe_stage(
    job: JobSeen,
    *,
    pods: Sequence[PodSeen] = (),
    events: Sequence[EventSeen] = (),
    workload: WorkloadSeen | None = None,
) -> StageObserved:
    """The attempt as the core sees it; its sums are read from the store by the caller."""
    end, waits, message = job.end, "", ""
    if end is not None:
        message = f"{end.reason}: {end.message}" if end.type == "Failed" else ""
    elif (why := waiting(job, pods=pods, events=events, workload=workload)) is not None:
        waits, message = why.reason, why.message
    return StageObserved(
        completed=job.status.completed_indexes,
        failed={index: _failed(index, pods) for index in parse_ranges(job.status.failed_indexes)},
        ended=end is not None,
        waits=waits,
        message=message,
    )


def waiting(
    job: JobSeen,
    *,
    pods: Sequence[PodSeen] = (),
    events: Sequence[EventSeen] = (),
    workload: WorkloadSeen | None = None,
) -> Waiting | None:
    """Why a Job that has not ended does not get on; None if nothing keeps it."""
    if job.spec.suspend:
        return _suspended(job, workload)
    live = [pod for pod in pods if pod.status.phase in ("", "Pending")]
    stuck = next((why for pod in live if (why := _stuck(pod)) is not None), None)
    return stuck or _refused(job, pods, events)


def _suspended(job: JobSeen, workload: WorkloadSeen | None) -> Waiting:
    """Kueue suspends a Job until it has room for it, and says so in the Workload."""
    queue = job.metadata.labels.get(QUEUE_LABEL, "")
    if not queue:
        return Waiting(reason=WaitReason.SUSPENDED, message="the Job is suspended")
    words = _said_by_kueue(workload.status.conditions) if workload is not None else ""
    words = words or "Kueue has not looked at it yet"
    return Waiting(reason=WaitReason.NOT_ADMITTED, message=f"queue {queue}: {words}")


def _said_by_kueue(conditions: Sequence[ConditionSeen]) -> str:
    """The newest of what keeps a Workload; empty if nothing is said.

    After an eviction Kueue tells in `QuotaReserved` what it waits for; `Admitted` sums both up.
    """
    said = [
        one
        for type, status in (("QuotaReserved", "False"), ("Evicted", "True"), ("Admitted", "False"))
        for one in conditions
        if (one.type, one.status) == (type, status) and one.message
    ]
    causes = [one for one in said if one.type != "Admitted"]
    newest = max(causes or said, key=lambda one: one.last_transition_time, default=None)
    return newest.message if newest is not None else ""


def _stuck(pod: PodSeen) -> Waiting | None:
    """Why a pod does not start."""
    for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        state = container.state.waiting
        if state is None or state.reason in _STARTING_REASONS:
            continue
        image = state.reason in _IMAGE_REASONS
        reason = WaitReason.IMAGE_UNAVAILABLE if image else WaitReason.CONTAINER_NOT_STARTED
        what = f"{container.image}: " if image else ""
        return Waiting(
            reason=reason, message=f"pod {pod.metadata.name}: {what}{state.reason}: {state.message}"
        )
    for one in pod.status.conditions:
        if (one.type, one.status, one.reason) == ("PodScheduled", "False", "Unschedulable"):
            return Waiting(
                reason=WaitReason.UNSCHEDULABLE, message=f"pod {pod.metadata.name}: {one.message}"
            )
    return None


def _refused(job: JobSeen, pods: Sequence[PodSeen], events: Sequence[EventSeen]) -> Waiting | None:
    """Why there are fewer pods than there should be.

    A refusal that is older than the newest pod is over.
    """
    if job.missing <= 0:
        return None
    newest = max((pod.metadata.creation_timestamp for pod in pods), default=_BEGINNING)
    refusals = [one for one in events if one.reason == "FailedCreate" and one.when >= newest]
    if not refusals:
        return None
    message = max(refusals, key=lambda one: one.when).message
    reason = next(
        (reason for words, reason in _REFUSALS if words in message), WaitReason.POD_REFUSED
    )
    return Waiting(reason=reason, message=message)


def _failed(index: int, pods: Sequence[PodSeen]) -> FailedIndex:
    """Why an index was given up, by its newest pod."""
    own = [pod for pod in pods if pod.index == index and pod.status.phase == "Failed"]
    if not own:
        return FailedIndex(reason="Unknown", message="its pod is gone, and why it failed with it")
    pod = max(own, key=lambda one: one.metadata.creation_timestamp)
    # A mesh or an agent may have put containers of its own beside it, which end in their own way
    own_container = (one for one in pod.status.container_statuses if one.name == CONTAINER)
    ended = next((one.state.terminated for one in own_container if one.state.terminated), None)
    name = pod.metadata.name
    if ended is None or pod.status.reason:
        # Of a pod that the node has evicted its container says no more than that it was stopped
        reason = pod.status.reason or "Unknown"
        return FailedIndex(reason=reason, message=f"pod {name}: {pod.status.message}")
    if ended.reason == "OOMKilled":
        message = f"pod {name} was killed at its memory limit: give it more"
        return FailedIndex(reason=ended.reason, message=message)
    said = read_termination(ended.message)
    if said is None:
        reason = ended.reason or "Error"
        message = f"pod {name} ended with exit code {ended.exit_code} and said nothing more"
        return FailedIndex(reason=reason, message=message)
    return _told(said)


def _told(said: Termination) -> FailedIndex:
    return FailedIndex(
        reason=said.reason or "Unknown",
        message=said.message,
        permanent=said.permanent,
        retry_after_seconds=said.retry_after_seconds or 0.0,
    )


def _true(conditions: Sequence[ConditionSeen], *types: str) -> Iterator[ConditionSeen]:
    return (one for one in conditions if one.type in types and one.status == "True")
