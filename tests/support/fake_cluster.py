"""A cluster as a controller sees it: Jobs that outlive controllers, and a status with versions.

A Job's pods are asyncio tasks that do the real work of a worker. Pods die and are started again, as
often as the Job allows; a node is lost and its pod goes on as a ghost beside its replacement; what
the API server shows may be old; a status written on an old version is refused.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from controller_harness import RUN
from direct_clients import Bureau, DirectClients
from resume_harness import Crash, Effects

from controller_svc.core import (
    Action,
    AttemptBudget,
    Observed,
    RunStatus,
    StageObserved,
    StartStage,
    StopStage,
    new_status,
)
from controller_svc.local.indexed import IndexedStage
from controller_svc.local.world import shard_task
from controller_svc.worker.task import run_task
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, SealError, Transient
from seal.runs.epochs import check_epoch, claim_stage
from seal.settings import RunSpec

TICK_SECONDS = 0.01
PODS = AttemptBudget(attempts=4, base_seconds=0.0, max_seconds=0.0)


@dataclass
class FakeCluster:
    """What is there whoever controls it."""

    spec: RunSpec
    store: ArtifactStore
    """As the pods see it."""
    bureau: Bureau
    random: random.Random
    pod_deaths: float = 0.0
    """Share of the pods that die in the middle of their work."""
    lost_nodes: float = 0.0
    """Share of the pods whose node is lost: a replacement works beside the ghost."""
    stale: float = 0.0
    """Share of the looks that show an older state."""
    jobs: dict[str, IndexedStage] = field(default_factory=dict)
    ghosts: list[asyncio.Task[object]] = field(default_factory=list)
    status: RunStatus = field(init=False)
    version: int = 0
    epoch: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.status = new_status(self.spec, run=RUN)

    def elect(self, effects: Effects) -> ClusterWorld:
        """A controller takes its turn."""
        self.epoch += 1
        return ClusterWorld(self, self.epoch, self.version, effects)

    async def pod(self, action: StartStage, shard: int) -> None:
        """One pod of a Job."""
        if self.random.random() < self.lost_nodes:
            self.ghosts.append(asyncio.create_task(self._work(action, shard)))
        if self.random.random() < self.pod_deaths:
            dying = asyncio.create_task(self._work(action, shard))
            for _ in range(self.random.randint(1, 40)):
                await asyncio.sleep(0)
            dying.cancel()
            await asyncio.wait({dying})
            raise Transient("the pod was killed")
        await self._work(action, shard)

    async def _work(self, action: StartStage, shard: int) -> None:
        clients = DirectClients(self.bureau, Effects())
        await run_task(
            shard_task(action, shard),
            spec=self.spec,
            store=self.store,
            clients=clients,  # type: ignore[arg-type]
        )

    async def news(self) -> None:
        """Wait until a pod has ended, or for a tick: an old view calls for another look."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self.changed.wait()
        except TimeoutError:
            return
        self.changed.clear()

    async def end(self) -> None:
        """Let everything that still runs end."""
        for job in self.jobs.values():
            job.stop()
            await job.gone()
        await asyncio.gather(*self.ghosts, return_exceptions=True)


class ClusterWorld:
    """The `World` of one controller."""

    def __init__(self, cluster: FakeCluster, epoch: int, version: int, effects: Effects) -> None:
        self._cluster, self._epoch, self._version = cluster, epoch, version
        self._effects = effects
        self._seen: dict[str, StageObserved] = {}

    async def observe(self, status: RunStatus) -> Observed:
        """Jobs as the API server shows them, now and then as it showed them before."""
        cluster = self._cluster
        if not (self._seen and cluster.random.random() < cluster.stale):
            jobs = dict(cluster.jobs)  # another controller may change them while this one looks
            self._seen = {name: await self._job(name, job, status) for name, job in jobs.items()}
        return Observed(stages=self._seen, epoch=self._epoch)

    async def _job(self, name: str, job: IndexedStage, status: RunStatus) -> StageObserved:
        seen, current = job.observed(), status.current
        if not seen.ended or seen.failed or current is None or current.name != name:
            return seen
        sums = await read_sums(self._cluster.store, RUN, current)
        return StageObserved(completed=seen.completed, ended=True, sums=sums)

    async def save(self, status: RunStatus) -> None:
        """Write the status, if nobody has since this controller read it."""
        self._effects.at("save", str(status.stage), "before")
        if (current := status.current) is not None:
            await check_epoch(self._cluster.store, RUN, current.round, current.stage, self._epoch)
        if self._version != self._cluster.version:
            raise Conflict("the object has been modified")
        self._cluster.status = RunStatus.model_validate_json(status.model_dump_json())
        self._cluster.version += 1
        self._effects.at("save", str(status.stage), "during")
        self._version = self._cluster.version
        self._effects.at("save", str(status.stage), "after")

    async def act(self, action: Action) -> None:
        """Create a Job, or find it there; delete one."""
        self._effects.at("act", action.name, "before")
        cluster = self._cluster
        if isinstance(action, StopStage):
            if (job := cluster.jobs.pop(action.name, None)) is not None:
                job.stop()
        elif action.name not in cluster.jobs:
            await claim_stage(cluster.store, RUN, action.round, action.stage, self._epoch)
            if action.name not in cluster.jobs:  # a rival may have been faster: its Job is adopted
                cluster.jobs[action.name] = IndexedStage(
                    action,
                    lambda shard: cluster.pod(action, shard),
                    budget=PODS,
                    changed=cluster.changed,
                )
        self._effects.at("act", action.name, "during")
        self._effects.at("act", action.name, "after")


CONTROLLER_ERRORS = (Crash, SealError)
"""What ends a controller's turn; another one takes over."""
