"""The Jobs of an object and what belongs to them, as the API server has them now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import structlog

from controller_svc.core import StageObserved
from controller_svc.k8s.api import (
    EVENTS,
    JOBS,
    PODS,
    WORKLOADS,
    WORKLOADS_BEFORE,
    ClusterApi,
)
from controller_svc.k8s.jobs import QUEUE_LABEL, RUN_LABEL, Owner
from controller_svc.k8s.kept import Kept
from controller_svc.k8s.looking import EventSeen, JobSeen, PodSeen, WorkloadSeen, observe_stage
from seal.errors import Conflict, NotFound
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

MAX_READ_JOBS = 4096
"""Jobs that are kept read; the others are read again at each look."""
CONTROLLER_UID_LABEL = "batch.kubernetes.io/controller-uid"
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"


class ReadJobs:
    """Reads Jobs; one whose version is the one that it was at the last time is read already.

    A look is at all Jobs of an object, and nearly all of them have ended.
    """

    def __init__(self) -> None:
        self._kept: Kept[JobSeen] = Kept(MAX_READ_JOBS)

    def read(self, body: Tree) -> JobSeen:
        """What a Job says."""
        metadata = cast("dict[str, str]", body["metadata"])
        version = metadata["resourceVersion"]
        return self._kept.get(metadata["uid"], version, lambda: JobSeen.model_validate(body))


class Children:
    """What one object owns."""

    def __init__(self, api: ClusterApi, owner: Owner, *, jobs: ReadJobs | None = None) -> None:
        self._api, self._owner = api, owner
        self._read_jobs = jobs if jobs is not None else ReadJobs()

    async def jobs(self) -> dict[str, JobSeen]:
        """Its Jobs by name."""
        label = f"{RUN_LABEL}={self._owner.name}"
        found = await self._api.list(JOBS, self._owner.namespace, labels=label)
        seen = [self._read_jobs.read(body) for body in found]
        return {job.metadata.name: job for job in seen if self.owns(job)}

    async def job(self, name: str) -> JobSeen | None:
        """The Job of a name, whoever owns it; None if there is none."""
        try:
            return JobSeen.model_validate(await self._api.get(JOBS, self._owner.namespace, name))
        except NotFound:
            return None

    async def stop(self, job: JobSeen) -> None:
        """Delete a Job, unless it is going; it stays in sight until its pods have gone."""
        if job.metadata.deletion_timestamp is not None:
            return
        name = job.metadata.name
        try:
            await self._api.delete(JOBS, self._owner.namespace, name, uid=job.metadata.uid)
        except (NotFound, Conflict) as error:
            log.info("job gone already", job=name, cause=str(error))

    def owns(self, job: JobSeen) -> bool:
        """By uid: a Job of an earlier object of the same name is not this one's."""
        return any(
            owner.controller and owner.uid == self._owner.uid
            for owner in job.metadata.owner_references
        )

    async def look(self, job: JobSeen) -> StageObserved:
        """A Job with why it waits or failed, which stands in what belongs to it."""
        pods: Sequence[PodSeen] = ()
        events: Sequence[EventSeen] = ()
        workload = None
        if job.spec.suspend and job.end is None:
            workload = await self._workload(job)
        elif job.idle or job.status.failed_indexes:
            pods = await self._pods(job)
            events = await self._events(job) if job.idle and job.missing > 0 else ()
        return observe_stage(job, pods=pods, events=events, workload=workload)

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
        for kind in (WORKLOADS, WORKLOADS_BEFORE):
            try:
                found = await self._api.list(kind, self._owner.namespace, labels=label)
            except NotFound:
                continue
            return WorkloadSeen.model_validate(found[0]) if found else None
        return None
