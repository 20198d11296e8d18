"""One look at one object: read it, bring it a step nearer to what its owner wants, say so.

Whatever brought the object here, the look is the same: nothing is remembered of what happened, and
a look too many changes nothing. The objects that cannot be read, or whose world fails, say so
themselves, in a condition and an Event, and come again; the others do not notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from controller_svc.core import RunStatus
from controller_svc.k8s.api import (
    ClusterApi,
    Resource,
    StatusRefused,
    is_of_server,
    write_status,
)
from controller_svc.k8s.children import Children, ReadJobs
from controller_svc.k8s.ended import disown, seconds_to_live, sweep
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.jobs import Owner
from controller_svc.k8s.objects import ObjectPublication, shown_of, to_object
from controller_svc.k8s.publishing.publication import publish
from controller_svc.k8s.refused import (
    fail_refused,
    kept_seconds_of_refused,
    status_of_refused,
)
from controller_svc.k8s.services import Services
from controller_svc.k8s.story import Story
from controller_svc.k8s.wanted import (
    ReadSpecs,
    Wanted,
    generation_of,
    is_deleted,
    kind_of,
    owner_of,
)
from controller_svc.k8s.world import ClusterWorld
from controller_svc.reconcile import reconcile
from controller_svc.tracking import AGAIN_SECONDS, Telling, Tracker
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound, SealError, Superseded
from seal.settings import RunSpec
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

STOPPING_LOOK_SECONDS = 25.0
"""Between two looks at an object that has ended and whose Jobs or trainings have not."""
UNSWEPT_LOOK_SECONDS = 300.0
"""Between two looks at one of whose files some could not be removed."""
SUSPENDED_LOOK_SECONDS = 300.0
"""Between two looks at one that is suspended, if nothing is heard of it."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """An object by its place."""

    resource: Resource
    namespace: str
    name: str


class Controller:
    """Looks after objects, in one turn of leadership."""

    def __init__(
        self,
        *,
        api: ClusterApi,
        store: ArtifactStore,
        settings: JobSettings,
        epoch: int,
        story: Story,
        gauges: ObjectGauges,
        services: Services | None = None,
        tracker: Tracker | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`services`: as a `ClusterWorld` takes it. `tracker` is told of runs; None: nobody is."""
        self._api, self._store, self._settings, self._epoch = api, store, settings, epoch
        self._story, self._gauges, self._services = story, gauges, services
        self._tracker, self._clock = tracker, clock
        self._specs = ReadSpecs()
        self._pinned: set[str] = set()
        self._read_jobs = ReadJobs()
        self._unsure: dict[Key, RunStatus] = {}
        """What was told last of those whose last look failed: a newer status may be written."""

    async def reconcile(self, key: Key) -> float | None:
        """Look at an object; after so many seconds it wants another look, None for none.

        Raises:
            SealError: the world could not be seen or changed. Nothing is lost.

        """
        try:
            body = await self._api.get(key.resource, key.namespace, key.name)
        except NotFound:
            self._forget(key)
            return None
        if is_deleted(body):
            return None  # its Jobs go first, and then it: the garbage collector sees to it
        try:
            return await self._look_at(key, body)
        except StatusRefused as error:
            owner = owner_of(key.resource, body)
            self._story.tell_refused(owner, error, now_seconds=self._clock())
            raise

    async def _look_at(self, key: Key, body: Tree) -> float | None:
        """An object that is there."""
        try:
            wanted = self._specs.read(key.resource, body)
        except InvalidInput as error:
            return await self._refuse(key.resource, body, error)
        return await self._look_after(key, wanted)

    async def _look_after(self, key: Key, wanted: Wanted) -> float | None:
        """One turn of the loop, and what is to be told of it."""
        world = ClusterWorld(
            wanted,
            api=self._api,
            store=self._store,
            settings=self._settings,
            epoch=self._epoch,
            services=self._services,
            pinned=self._pinned,
            read_jobs=self._read_jobs,
            clock=self._clock,
        )
        before = saved = wanted.status
        known = self._unsure.pop(key, before)

        def told(_: RunStatus, now: RunStatus) -> None:
            nonlocal saved
            saved = now

        try:
            status = await reconcile(wanted.manifest.spec, before, world, told=told)
            await world.show()
        except SealError as error:
            saved = await self._say(world, saved, error)
            self._unsure[key] = saved
            raise
        finally:
            self._tell(
                wanted.owner,
                known if known.run == before.run else before,
                saved,
                percent=world.percent,
                stage_share=world.stage_share,
                published=wanted.shown.publication if wanted.shown is not None else None,
            )
            self._track(wanted, saved)
        if status.phase.terminal:
            self._pinned.discard(status.run)
            return await self._after_its_end(wanted, status, world)
        return SUSPENDED_LOOK_SECONDS if wanted.cluster.suspend else world.due_seconds

    async def _say(self, world: ClusterWorld, saved: RunStatus, error: SealError) -> RunStatus:
        """Let the object say what keeps it; the status that is saved now.

        While the API server itself is away nothing can be written, and once another controller
        leads it is no longer ours to say. A status that is refused is told by an Event.
        """
        if is_of_server(error) or isinstance(error, Superseded | StatusRefused):
            return saved
        try:
            return await world.say(error)
        except SealError as again:
            log.info("trouble not told", cause=str(again))
            return saved

    async def _after_its_end(
        self, wanted: Wanted, status: RunStatus, world: ClusterWorld
    ) -> float | None:
        """What is left to do once nothing of it is at work: tidy up, serve it, delete it."""
        if await disown(self._store, status) or world.at_work:
            return STOPPING_LOOK_SECONDS
        swept = await sweep(self._store, wanted, status)
        publication = await publish(wanted, status, api=self._api, clock=self._clock)
        if publication is not None:
            if publication.news:  # before it is written: a controller that dies tells it again
                self._story.tell_published(
                    wanted.owner, publication.shown, now_seconds=self._clock()
                )
            await world.publish(publication.shown)
        kept_seconds = wanted.cluster.ttl_seconds_after_finished
        looks = (
            await self._delete_in_time(wanted.kind, wanted.owner, kept_seconds, status),
            publication.due_seconds if publication is not None else None,
            self._tracker_due_seconds(status),
            None if swept else UNSWEPT_LOOK_SECONDS,
        )
        return min((look for look in looks if look is not None), default=None)

    async def _delete_in_time(
        self, kind: Resource, owner: Owner, kept_seconds: int | None, status: RunStatus
    ) -> float | None:
        """Delete an object whose time after its end is over; until it is, the seconds left."""
        left_seconds = seconds_to_live(kept_seconds, status, self._clock())
        if left_seconds is None or left_seconds > 0:
            return left_seconds
        await self._api.delete(kind, owner.namespace, owner.name, uid=owner.uid)
        log.info("object deleted after its time", kind=owner.kind, name=owner.name)
        return None

    async def _refuse(self, kind: Resource, body: Tree, error: InvalidInput) -> float | None:
        """Let an object fail whose spec is none: it cannot be mended, as a spec is not changed."""
        owner, before = owner_of(kind, body), status_of_refused(kind, body)
        if before.phase.terminal:
            after = before
            self._gauges.show(owner, before, percent=0, now_seconds=self._clock())
        else:
            after, shown = fail_refused(before, error, self._clock()), shown_of(body)
            status = to_object(
                after,
                generation=generation_of(body),
                progress=shown.progress if shown else None,
                columns=shown.columns if shown else None,
            )
            await write_status(self._api, kind, owner.namespace, body | {"status": status})
            self._tell(owner, before, after, percent=0)
        await self._stop_jobs(owner)
        return await self._delete_in_time(kind, owner, kept_seconds_of_refused(body), after)

    async def _stop_jobs(self, owner: Owner) -> None:
        """Stop what an earlier version, which could read the spec, has started."""
        children = Children(self._api, owner, jobs=self._read_jobs)
        for job in (await children.jobs()).values():
            if job.end is None:
                await children.stop(job)

    def _tell(
        self,
        owner: Owner,
        before: RunStatus,
        after: RunStatus,
        *,
        percent: int,
        stage_share: float | None = None,
        published: ObjectPublication | None = None,
    ) -> None:
        """Tell what became of it at this look, to all who listen."""
        self._gauges.show(
            owner, after, percent=percent, now_seconds=self._clock(), stage_share=stage_share
        )
        self._gauges.count(before, after)
        self._story.tell(owner, before, after, now_seconds=self._clock(), published=published)

    def _track(self, wanted: Wanted, status: RunStatus) -> None:
        """Tell the tracker of a run, if it has one; who does not get on is told once it does."""
        spec = wanted.manifest.spec
        if self._tracker is not None and isinstance(spec, RunSpec):
            self._tracker.tell(Telling(name=wanted.owner.name, spec=spec, status=status))

    def _tracker_due_seconds(self, status: RunStatus) -> float | None:
        """Until a run that has ended is told of again; None if its tracker has all of it."""
        missing = self._tracker is not None and self._tracker.missing(status.run)
        return AGAIN_SECONDS if missing else None

    def _forget(self, key: Key) -> None:
        """An object has gone."""
        self._unsure.pop(key, None)
        place = (kind_of(key.resource), key.namespace, key.name)
        self._gauges.forget(*place)
        self._story.forget(*place)
