"""A cluster: the world of one run or adaptation, whose stages are Jobs.

All that is remembered is the object's status; what is there is looked at each time. A Job's name
says which attempt of which stage it is, so starting one twice finds the first, whoever made it: a
Job of the same owner and spec is adopted. Before a Job is created its stage is claimed for this
controller's epoch, and one whose epoch is older than the newest claim creates nothing: a leader
that was paused and wakes does no harm. A claim is not made for a Job that is there already, as it
would end the work of that Job's pods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from controller_svc.core import (
    Action,
    FailedIndex,
    Observed,
    Phase,
    RunStatus,
    StageObserved,
    StageStatus,
    StartStage,
    StopStage,
    spec_digest,
)
from controller_svc.core.conditions import set_condition
from controller_svc.k8s.api import JOBS, ClusterApi
from controller_svc.k8s.children import Children, ReadJobs
from controller_svc.k8s.hops import hop_of_object, hop_of_owner
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.jobs import SPEC_ANNOTATION, stage_job
from controller_svc.k8s.looking import JobSeen, WaitReason, observe_stage
from controller_svc.k8s.objects import MICROSECONDS, ObjectPublication
from controller_svc.k8s.progress import StageProgress, stage_share
from controller_svc.k8s.services import Services
from controller_svc.k8s.shown import ShownStatus
from controller_svc.k8s.wanted import Wanted
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Internal, SealError, Transient, error_class
from seal.names import stage_name
from seal.rpc.hops import Hop
from seal.rpc.tracing import working
from seal.runs.epochs import check_epochs, claim_newest
from seal.runs.store import in_thread, manifest_path
from seal.settings import Spec

log = structlog.get_logger(__name__)

LOOK_SECONDS = 25.0
"""Between two looks at a stage of which nothing is heard: its progress moves every 30 s."""
STARTING_LOOK_SECONDS, STARTING_SECONDS = 5.0, 60.0
"""The same of one whose pods are not at work yet, and for how long: why they are not is told
soon."""
YOUNG_SECONDS = 3.0
"""A Job's pods start meanwhile: why they do not is asked for later. Each such question walks over
all pods of the namespace."""


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
        services: Services | None = None,
        pinned: set[str] | None = None,
        read_jobs: ReadJobs | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix time: ends of Jobs are compared with it.

        `services`: who knows whether those that stages call are there; None asks nobody.
        `pinned`: runs that this controller has pinned to their manifests, which is noted there.
        `read_jobs`: those of earlier looks.
        """
        self._wanted, self._owner = wanted, wanted.owner
        self._api, self._store, self._settings = api, store, settings
        self._epoch, self._services, self._clock = epoch, services, clock
        self._children = Children(api, self._owner, jobs=read_jobs)
        self._shown = ShownStatus(wanted, api=api, places=settings.parallelism)
        self._jobs: dict[str, JobSeen] = {}
        self._pause_ends_in: float | None = None
        self._pinned = pinned if pinned is not None else set()
        self._entered = ""
        """The attempt that this look's status is the first to name."""
        self.stage_share: float | None = None
        """Share of the current stage that is done; None if this look has not counted it."""

    @property
    def at_work(self) -> bool:
        """Whether anything of it has not ended, or not gone."""
        return any(job.end is None for job in self._jobs.values())

    @property
    def percent(self) -> int:
        """How far the object says that it is."""
        written = self._shown.written
        return written.progress.percent if written is not None else 0

    @property
    def due_seconds(self) -> float:
        """After so long another look is worth it, also if nothing is heard of it."""
        if self._pause_ends_in is not None:
            return self._pause_ends_in
        job = self._current_job()
        starts = job is not None and job.idle and job.age_seconds(self._now()) < STARTING_SECONDS
        return STARTING_LOOK_SECONDS if starts else LOOK_SECONDS

    async def observe(self, status: RunStatus) -> Observed:
        """The Jobs that belong to this object, and what keeps the current one."""
        self._pause_ends_in = None
        self._jobs = await self._children.jobs()
        stages: dict[str, StageObserved] = {}
        for name, job in self._jobs.items():
            current = status.current
            if current is not None and current.name == name:
                stages[name] = await self._current(job, current)
            else:
                stages[name] = observe_stage(job)
        return Observed(
            stages=stages,
            cancelled=self._wanted.cancelled,
            suspended=self._wanted.cluster.suspend,
            epoch=self._epoch,
            now_seconds=self._now(),
        )

    async def save(self, status: RunStatus) -> None:
        """Replace the object's status, if it differs.

        What only counts more finished shards waits for `show`: nothing rests on it.
        """
        before = self._shown.newest
        if not self._shown.decides(status):
            self._shown.count(status)
            return
        currents = [one.current for one in (status, before) if one.current is not None]
        places = {(current.round, current.stage) for current in currents}
        if places:
            await check_epochs(self._store, status.run, places, self._epoch)
        await self._shown.write(status, self._now())
        self._entered = _attempt(status) if _attempt(status) != _attempt(before) else ""

    async def show(self) -> None:
        """Write how far the current stage is, if the last time is some time ago."""
        status, job, now = self._shown.newest, self._current_job(), self._now()
        if status.phase is not Phase.RUNNING or status.current is None or job is None:
            return
        if job.end is not None or not self._shown.may_count(now):
            return
        self.stage_share = share = await stage_share(
            self._store, status.run, status.current, job.status.active
        )
        await self._shown.write_count(StageProgress(share=share, seconds=job.seconds(now)), now)

    async def say(self, error: SealError) -> RunStatus:
        """Let the object say what keeps it, as the world cannot be seen or changed; its status.

        What was decided and could not be saved is no part of it: the next look decides anew.
        """
        status, reason = self._shown.newest, error_class(error).reason
        if not status.phase.terminal:
            now = self._now()
            status = set_condition(status, "Progressing", "False", reason, str(error), now)
            await self._shown.write(status, now)
        return status

    async def publish(self, shown: ObjectPublication) -> None:
        """Write what became of the adapter that it is to serve, if that is news."""
        self._shown.publication = shown
        await self._shown.write(self._shown.newest, self._now())

    async def act(self, action: Action) -> None:
        """Create the Job of an attempt, or adopt it; delete one that nothing wants.

        Raises:
            Superseded: a newer controller has started the stage; nothing was created.
            Conflict: the Job's name is another's, or the run is pinned to another spec.

        """
        if isinstance(action, StopStage):
            if (job := self._jobs.get(action.name)) is not None:
                await self._children.stop(job)
        elif action.name == self._entered or not await self._adopt(action):
            # Nobody makes the Job of an attempt that no status has named
            pause = self._pause_seconds(action)
            if pause > 0:
                self._pause_ends_in = pause
                return
            await self._start(action)

    async def _start(self, action: StartStage) -> None:
        """The manifest first: pods read it. Then the claim, which outdates older epochs."""
        await self._pin(action.run)
        await claim_newest(self._store, action.run, action.round, action.stage, action.epoch)
        hop = hop_of_object(self._wanted.body) or hop_of_owner(self._owner.uid)
        facts: dict[str, str | int] = {
            "run": action.run,
            "round": action.round,
            "stage": str(action.stage),
        }
        with working(f"start {action.stage}", hop, **facts) as told:
            await self._create(action, self._wanted.manifest.spec, told)

    async def _pin(self, run: str) -> None:
        """Pin a run to its manifest, unless this controller has."""
        if run in self._pinned:
            return
        manifest = self._wanted.manifest
        pinned = await in_thread(self._store.create_json, manifest_path(run), manifest)
        if pinned.spec != manifest.spec:
            raise Conflict(
                f"run {run!r} is pinned to another spec",
                field="spec",
                remedy="make another object with this one",
            )
        self._pinned.add(run)

    async def _create(self, action: StartStage, spec: Spec, hop: Hop) -> None:
        """The Job of an attempt; one that is there is adopted."""
        job = stage_job(
            action,
            spec=spec,
            cluster=self._wanted.cluster,
            owner=self._owner,
            settings=self._settings,
            hop=hop,
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
        job = await self._children.job(action.name)
        if job is None:
            return False
        digest = job.metadata.annotations.get(SPEC_ANNOTATION)
        if not self._children.owns(job) or digest != spec_digest(self._wanted.manifest.spec):
            raise Conflict(
                f"Job {action.name} exists and belongs to another object or spec",
                remedy="delete it",
            )
        return True

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
        seen = observe_stage(job) if self._starts(job) else await self._children.look(job)
        if job.end is None and not seen.waits:
            return self._with_services(seen, current)
        if job.end is None or job.end.type != "Complete":
            return seen
        try:
            sums = await read_sums(self._store, self._shown.newest.run, current)
        except Internal as error:
            # Of a store that is away or denied the stage has come to something all the same
            why = FailedIndex(reason=error_class(error).reason, message=str(error), permanent=True)
            return replace(seen, failed={0: why})
        return replace(seen, sums=sums)

    def _starts(self, job: JobSeen) -> bool:
        """Whether its pods are to be expected on their way."""
        young = 0 <= job.age_seconds(self._now()) < YOUNG_SECONDS
        return young and job.end is None and not (job.spec.suspend or job.status.failed_indexes)

    def _with_services(self, seen: StageObserved, current: StageStatus) -> StageObserved:
        """An attempt at work, unless it waits for a service."""
        why_not = self._services.why_not(current.stage) if self._services else ""
        if not why_not:
            return seen
        return replace(seen, waits=WaitReason.SERVICES_UNAVAILABLE, message=why_not)

    def _current_job(self) -> JobSeen | None:
        current = self._shown.newest.current
        return self._jobs.get(current.name) if current is not None else None

    def _now(self) -> float:
        """What a time of day in the object keeps, so that a status comes back as it was saved."""
        return round(self._clock(), MICROSECONDS)


def _attempt(status: RunStatus) -> str:
    return status.current.name if status.current is not None else ""
