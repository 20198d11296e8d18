"""A cluster: the world of one run or adaptation, whose stages are Jobs.

All that is remembered is the object's status; what is there is asked for at each look. A Job's name
says which attempt of which stage it is, so starting one twice finds the first, whoever made it: a
Job of the same owner and spec is adopted. Before a Job is created its stage is claimed for this
controller's epoch, and one whose epoch is older than the newest claim creates nothing: a leader
that was paused and wakes does no harm. A claim is not made for a Job that is there already, as it
would end the work of that Job's pods.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import structlog

from controller_svc.core import (
    Action,
    FailedIndex,
    Observed,
    RunStatus,
    StageObserved,
    StageStatus,
    StartStage,
    StopStage,
    new_status,
    spec_digest,
    stage_name,
)
from controller_svc.k8s.api import EVENTS, JOBS, PODS, WORKLOADS, ClusterApi, Resource
from controller_svc.k8s.jobs import (
    QUEUE_LABEL,
    RUN_LABEL,
    SPEC_ANNOTATION,
    JobSettings,
    Owner,
    stage_job,
)
from controller_svc.k8s.looking import EventSeen, JobSeen, PodSeen, WorkloadSeen, observe_stage
from controller_svc.k8s.objects import ObjectStatus, of_object, to_object
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, Retryable, SealError, Transient, error_class
from seal.records import Stage
from seal.resources import Adaptation, RestEMRun
from seal.runs.epochs import check_epoch, claim_stage
from seal.runs.store import in_thread, manifest_path
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

CONTROLLER_UID_LABEL = "batch.kubernetes.io/controller-uid"
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"
MICROSECONDS = 6
"""Decimals of a time that an object keeps."""
_HASH_CHARACTERS = 8


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An object of the API server, read."""

    kind: Resource
    body: Tree
    """As the API server gave it."""
    manifest: RestEMRun | Adaptation
    cluster: ClusterSettings

    @property
    def owner(self) -> Owner:
        """What its Jobs belong to."""
        metadata = cast("dict[str, str]", self.body["metadata"])
        return Owner(
            kind=self.manifest.kind,
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
        )

    @property
    def status(self) -> RunStatus:
        """Its status; that of what has not started if it has none yet."""
        return of_object(cast("Tree", self.body.get("status") or {})) or new_status(
            self.manifest.spec, run=store_name(self.owner)
        )


def store_name(owner: Owner) -> str:
    """What a run is called in the store: no other namespace's, and no earlier one of its name."""
    whole = f"{owner.namespace}/{owner.name}/{owner.uid}"
    tail = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{owner.name}-{tail}"


class ClusterWorld:
    """The `World` of one object in one controller's turn."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        api: ClusterApi,
        store: ArtifactStore,
        settings: JobSettings,
        epoch: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix time: ends of Jobs are compared with it."""
        self._wanted, self._owner, self._body = wanted, wanted.owner, wanted.body
        self._api, self._store, self._settings = api, store, settings
        self._epoch, self._clock = epoch, clock
        self._jobs: dict[str, JobSeen] = {}
        self._due_seconds: float | None = None

    @property
    def due_seconds(self) -> float | None:
        """After so long another look is worth it, as a pause ends then; None if none is kept."""
        return self._due_seconds

    async def observe(self, status: RunStatus) -> Observed:
        """The Jobs that belong to this object, and what keeps the current one."""
        self._due_seconds = None
        label = f"{RUN_LABEL}={self._owner.name}"
        found = await self._api.list(JOBS, self._owner.namespace, labels=label)
        seen = [JobSeen.model_validate(body) for body in found]
        self._jobs = {job.metadata.name: job for job in seen if self._owns(job)}
        stages: dict[str, StageObserved] = {}
        for name, job in self._jobs.items():
            current = status.current
            if current is not None and current.name == name:
                stages[name] = await self._current(job, current)
            else:
                stages[name] = observe_stage(job)
        cluster = self._wanted.cluster
        return Observed(
            stages=stages,
            cancelled=isinstance(cluster, AdaptationClusterSettings) and cluster.cancelled,
            epoch=self._epoch,
            # What a time of day in the object keeps, so that a status comes back as it was saved
            now_seconds=round(self._clock(), MICROSECONDS),
        )

    async def save(self, status: RunStatus) -> None:
        """Replace the object's status, if it differs."""
        run = status.run
        for stage in {_place(status), _place(self._status())} - {None}:
            if stage is not None:
                await check_epoch(self._store, run, *stage, self._epoch)
        before = self._shown()
        metadata = cast("dict[str, int]", self._body["metadata"])
        status_body = to_object(
            status,
            generation=metadata.get("generation", 0),
            progress=before.progress if before is not None else None,
            columns=before.columns if before is not None else None,
            publication=before.publication if before is not None else None,
        )
        if before == ObjectStatus.model_validate(status_body):
            return
        body = self._body | {"status": status_body}
        self._body = await self._api.replace_status(self._wanted.kind, self._owner.namespace, body)

    async def act(self, action: Action) -> None:
        """Create the Job of an attempt, or adopt it; delete one that nothing wants.

        Raises:
            Superseded: a newer controller has started the stage; nothing was created.
            Conflict: the Job's name is another's, or the run is pinned to another spec.

        """
        if isinstance(action, StopStage):
            await self._stop(action.name)
        elif not await self._adopt(action):
            pause = self._pause_seconds(action)
            if pause > 0:
                self._due_seconds = pause
                return
            await self._start(action)

    async def _start(self, action: StartStage) -> None:
        """The manifest first: pods read it. Then the claim, which outdates older epochs."""
        manifest = self._wanted.manifest
        pinned = await in_thread(self._store.create_json, manifest_path(action.run), manifest)
        if pinned.spec != manifest.spec:
            raise Conflict(f"run {action.run!r} is pinned to another spec", field="spec")
        await claim_stage(self._store, action.run, action.round, action.stage, action.epoch)
        await check_epoch(self._store, action.run, action.round, action.stage, action.epoch)
        job = stage_job(
            action,
            spec=manifest.spec,
            cluster=self._wanted.cluster,
            owner=self._owner,
            settings=self._settings,
        )
        try:
            await self._api.create(JOBS, self._owner.namespace, job)
        except Conflict as error:
            # The server says so of a quota that is being counted, too: then there is no Job
            if not await self._adopt(action):
                raise Transient(f"Job {action.name} was not created: {error.message}") from error
        else:
            log.info("job created", job=action.name, attempt=action.attempt, epoch=action.epoch)

    async def _adopt(self, action: StartStage) -> bool:
        """Whether the Job is there; its epoch does not matter, as its pods are told theirs."""
        try:
            found = await self._api.get(JOBS, self._owner.namespace, action.name)
        except NotFound:
            return False
        job = JobSeen.model_validate(found)
        digest = job.metadata.annotations.get(SPEC_ANNOTATION)
        if not self._owns(job) or digest != spec_digest(self._wanted.manifest.spec):
            raise Conflict(
                f"Job {action.name} exists and belongs to another object or spec",
                remedy="delete it",
            )
        return True

    async def _stop(self, name: str) -> None:
        """It stays in sight until its pods have gone."""
        job = self._jobs.get(name)
        if job is None or job.metadata.deletion_timestamp is not None:
            return
        try:
            await self._api.delete(JOBS, self._owner.namespace, name, uid=job.metadata.uid)
        except (NotFound, Conflict) as error:
            log.info("job gone already", job=name, cause=str(error))

    def _pause_seconds(self, action: StartStage) -> float:
        """What is left of the pause, which began when the attempt before ended.

        It is never longer than it was to be, whatever the server's clock says.
        """
        before = stage_name(
            run=action.run, round=action.round, stage=action.stage, attempt=action.attempt - 1
        )
        job = self._jobs.get(before)
        if job is None or job.end is None:
            return 0.0
        ended_seconds = job.end.last_transition_time.timestamp()
        left = ended_seconds + action.delay_seconds - self._clock()
        return min(left, action.delay_seconds)

    async def _current(self, job: JobSeen, current: StageStatus) -> StageObserved:
        """The current attempt: why it waits or failed, or what it came to."""
        pods: Sequence[PodSeen] = ()
        events: Sequence[EventSeen] = ()
        workload = None
        idle = job.end is None and (job.missing > 0 or job.status.ready < job.status.active)
        if job.spec.suspend and job.end is None:
            workload = await self._workload(job)
        elif idle or job.status.failed_indexes:
            pods = await self._pods(job)
            events = await self._events(job) if idle and job.missing > 0 else ()
        seen = observe_stage(job, pods=pods, events=events, workload=workload)
        if job.end is None or job.end.type != "Complete":
            return seen
        try:
            sums = await read_sums(self._store, self._status().run, current)
        except Retryable:
            raise  # the store is away: the stage has come to something all the same
        except SealError as error:
            why = FailedIndex(reason=error_class(error).reason, message=str(error), permanent=True)
            return replace(seen, failed={0: why})
        return replace(seen, sums=sums)

    async def _pods(self, job: JobSeen) -> list[PodSeen]:
        label = f"{CONTROLLER_UID_LABEL}={job.metadata.uid}"
        found = await self._api.list(PODS, self._owner.namespace, labels=label)
        return [PodSeen.model_validate(body) for body in found]

    async def _events(self, job: JobSeen) -> list[EventSeen]:
        field = f"involvedObject.uid={job.metadata.uid}"
        found = await self._api.list(EVENTS, self._owner.namespace, fields=field)
        return [EventSeen.model_validate(body) for body in found]

    async def _workload(self, job: JobSeen) -> WorkloadSeen | None:
        """Kueue's, if the Job has a queue and the cluster has Kueue."""
        if QUEUE_LABEL not in job.metadata.labels:
            return None
        label = f"{WORKLOAD_JOB_LABEL}={job.metadata.uid}"
        try:
            found = await self._api.list(WORKLOADS, self._owner.namespace, labels=label)
        except NotFound:
            return None
        return WorkloadSeen.model_validate(found[0]) if found else None

    def _owns(self, job: JobSeen) -> bool:
        """By uid: a Job of an earlier object of the same name is not this one's."""
        return any(
            owner.controller and owner.uid == self._owner.uid
            for owner in job.metadata.owner_references
        )

    def _shown(self) -> ObjectStatus | None:
        values = self._body.get("status")
        return ObjectStatus.model_validate(values) if values else None

    def _status(self) -> RunStatus:
        return replace(self._wanted, body=self._body).status


def _place(status: RunStatus) -> tuple[int, Stage] | None:
    current = status.current
    return (current.round, current.stage) if current is not None else None
