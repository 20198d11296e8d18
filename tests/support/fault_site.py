"""A cluster in memory with objects in it, and controllers that come, die, pause and wake."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_objects import adaptation as adaptation_object
from cluster_objects import run as run_object
from invariants import WatchedApi, check_counted, check_jobs, check_nothing_left, result, writes
from memory_api import Key, Killed
from memory_cluster import CALM, Chances, MemoryCluster, Work
from mortal import Life, MortalApi, MortalStore
from pod_work import SyntheticWork
from prometheus_client import CollectorRegistry

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.api import ADAPTATIONS, EVENTS, JOBS, RUNS, ClusterApi
from controller_svc.k8s.controller import Controller
from controller_svc.k8s.controller import Key as ObjectKey
from controller_svc.k8s.event_post import EventPost
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.job_settings import (
    JobSettings,
    PodSettings,
    StoreAccess,
    TrainerPodSettings,
)
from controller_svc.k8s.leaders_api import LeadersApi
from controller_svc.k8s.queue import WorkQueue
from controller_svc.k8s.source import Seen
from controller_svc.k8s.story import RECENT_SECONDS, Story
from controller_svc.k8s.turn import key_of
from controller_svc.k8s.wanted import Wanted, read_wanted
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.metrics import Metrics

EVERYTHING = bool(os.environ.get("SEAL_FAULTS"))
"""Every case there is, and not a sample: minutes."""
NAMESPACE = "team"
SETTINGS = JobSettings(
    worker=PodSettings(image="seal:1"),
    trainer=TrainerPodSettings(image="seal:1"),
    services=ServiceAddresses(generator="g:1", trainer="t:1", evaluator="e:1"),
    store=StoreAccess(uri="file:///artifacts", claim_name="artifacts"),
)
STEPS = 400
"""After so many without an end there will be none."""
CALM_SECONDS = 60.0
"""After the end nothing is written for so long (I8)."""


class Process:
    """One process of the controller in its turn: what `turn.Turn` does, by the cluster's time."""

    def __init__(self, site: Site, epoch: int, life: Life) -> None:
        self.life = life
        self._site = site
        self._queue: WorkQueue[ObjectKey] = WorkQueue()
        api = MortalApi(site.api, life)
        self._events = EventPost(api)
        self._controller = controller_of(
            LeadersApi(api, lambda: life.leads),
            MortalStore.of(str(site.root), life),
            events=self._events,
            epoch=epoch,
            metrics=site.metrics,
            clock=lambda: site.cluster.now,
        )
        self.listen()

    def listen(self) -> None:
        """A list of all that there is, and from then on what happens to it."""
        for key, found in list(self._site.api.objects.items()):
            self._told(Seen(resource=key[0], kind="LISTED", body=found))
        self._site.api.watches.append(self._told)

    def lose_the_watch(self) -> None:
        """Half of the connection is left: nothing more is heard."""
        if self._told in self._site.api.watches:
            self._site.api.watches.remove(self._told)

    def _told(self, seen: Seen) -> None:
        ours = seen.resource in (RUNS, ADAPTATIONS, JOBS)
        if ours and (key := key_of(seen)) is not None:
            self._queue.add(key, at_seconds=self._site.cluster.now)

    async def turn(self) -> None:
        """A look at everything that is due, and only then the post of what the looks tell."""
        await self._look_at_all()
        try:
            await self._events.flush()
        except Killed:
            self.lose_the_watch()
            raise

    async def _look_at_all(self) -> None:
        while (key := self._queue.take(self._site.cluster.now)) is not None:
            try:
                again_seconds = await self._controller.reconcile(key)
            except SealError as error:
                self._queue.failed(
                    key,
                    now_seconds=self._site.cluster.now,
                    retry_after_seconds=error.retry_after_seconds,
                )
            except Killed:
                self.lose_the_watch()
                raise
            else:
                if again_seconds is not None:
                    self._queue.add(key, at_seconds=self._site.cluster.now + again_seconds)
                self._queue.done(key)


def controller_of(
    api: ClusterApi,
    store: ArtifactStore,
    *,
    events: EventPost,
    epoch: int,
    metrics: Metrics,
    clock: Callable[[], float] = time.time,
) -> Controller:
    """The controller of one turn."""
    return Controller(
        api=api,
        store=store,
        settings=SETTINGS,
        epoch=epoch,
        story=Story(events, identity=f"controller-{epoch}"),
        gauges=ObjectGauges(metrics),
        clock=clock,
    )


@dataclass
class Site:
    """What lives on whoever controls it."""

    root: Path
    seed: int = 0
    chances: Chances = CALM
    work: Work = field(default_factory=SyntheticWork)

    def __post_init__(self) -> None:
        self.api = WatchedApi()
        self.store = ArtifactStore(str(self.root))
        self.random = random.Random(self.seed)
        self.cluster = MemoryCluster(
            self.api, self.store, self.work, chances=self.chances, random=self.random
        )
        self.epoch = 0
        self.rivals = False
        """There is, or was, more than one leader at a time."""
        self.metrics = Metrics(CollectorRegistry())

    @property
    def keys(self) -> list[Key]:
        """The objects there are."""
        return sorted((key for key in self.api.objects if key[0] in (RUNS, ADAPTATIONS)), key=str)

    def submit(self, body: Any) -> Key:
        """Apply an object."""
        kind = RUNS if body["kind"] == "RestEMRun" else ADAPTATIONS
        made = self.api.put(kind, body | {"metadata": body["metadata"] | {"generation": 1}})
        key = (kind, NAMESPACE, made["metadata"]["name"])
        self.api.plans[made["metadata"]["uid"]] = self.wanted(key).manifest.spec
        return key

    def wanted(self, key: Key) -> Wanted:
        """An object as it is now."""
        return read_wanted(key[0], copy.deepcopy(self.api.objects[key]))

    def status(self, key: Key) -> RunStatus:
        """As the object has it."""
        return self.wanted(key).status

    def told(self) -> dict[str, list[tuple[str, str]]]:
        """(type, reason) of the Events of all objects, by name."""
        told: dict[str, list[tuple[str, str]]] = {}
        for key, found in self.api.objects.items():
            if key[0] == EVENTS and found.get("reportingComponent"):
                about = found["involvedObject"]["name"]
                told.setdefault(about, []).append((found["type"], found["reason"]))
        return {name: sorted(events) for name, events in told.items()}

    def elect(self, life: Life | None = None) -> Process:
        """A controller takes its turn."""
        self.epoch += 1
        return Process(self, self.epoch, life or Life())

    @property
    def ended(self) -> bool:
        """Everything has ended."""
        return all(self.status(key).phase.terminal for key in self.keys)

    async def to_the_end(self, *lives: Life) -> None:
        """Controllers one after another, the next one when one dies, until all has ended."""
        coming = iter(lives)
        controller = self.elect(next(coming, None))
        for _ in range(STEPS):
            try:
                await controller.turn()
            except Killed:
                controller = self.elect(next(coming, None))
                continue
            if self.ended:
                break
            await self.cluster.step()
            check_jobs(self.api, rivals=self.rivals)
        assert self.ended, [self.status(key) for key in self.keys]
        controller.lose_the_watch()
        await self.check_peace()

    async def check_peace(self) -> None:
        """I7 and I8: nothing is left at work, and for a minute nobody writes anything.

        Asked of a controller that has just started, once there is nothing recent that it would make
        sure of having told.
        """
        await self._go_on(self.elect(), RECENT_SECONDS)
        self.cluster.chances = CALM
        await self._go_on(self.elect(), RECENT_SECONDS)
        controller = self.elect()
        await controller.turn()
        asked, objects = len(self.api.requests), copy.deepcopy(self.api.objects)
        await self._go_on(controller, CALM_SECONDS)
        assert writes(self.api.requests[asked:]) == []
        assert self.api.objects == objects
        for key in self.keys:
            check_nothing_left(self.api, self.api.objects[key]["metadata"]["uid"])

    async def _go_on(self, controller: Process, seconds: float) -> None:
        """So much later."""
        for _ in range(4):
            await controller.turn()
            await self.cluster.step(seconds / 4)
        controller.lose_the_watch()

    async def check_all_counted(self) -> None:
        """I2 and I12 of everything that is complete."""
        for key in self.keys:
            status = self.status(key)
            if status.phase is Phase.COMPLETE:
                await check_counted(self.store, self.wanted(key).manifest.spec, status)

    def results(self) -> dict[str, object]:
        """I9: by name."""
        return {key[2]: result(self.status(key)) for key in self.keys}


def small_run(name: str = "demo", **spec: object) -> Any:
    """A run of one round in two shards."""
    return run_object(name, **({"rounds": 1, "shards": 2} | spec))


def small_adaptation(name: str = "notes", **spec: object) -> Any:
    """An adaptation that makes its questions, in two shards."""
    return adaptation_object(name, **({"shards": 2, "questions": {"source": "self-made"}} | spec))
