"""A cluster in memory with objects in it, and controllers that come, die, pause and wake."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from contextlib import suppress
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

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.api import ADAPTATIONS, RUNS, ClusterApi
from controller_svc.k8s.jobs import JobSettings, StoreAccess
from controller_svc.k8s.wanted import Wanted
from controller_svc.k8s.world import ClusterWorld
from controller_svc.reconcile import reconcile
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.config import adaptation_of_object, run_of_object
from seal.errors import SealError

NAMESPACE = "team"
SETTINGS = JobSettings(
    worker_image="seal:1",
    trainer_image="seal:1",
    services=ServiceAddresses(generator="g:1", trainer="t:1", evaluator="e:1"),
    store=StoreAccess(uri="file:///artifacts", claim_name="artifacts"),
)
STEPS = 400
"""After so many without an end there will be none."""
CALM_SECONDS = 60.0
"""After the end nothing is written for so long (I8)."""


class Controller:
    """One process of the controller in its turn."""

    def __init__(self, site: Site, epoch: int, life: Life) -> None:
        self.site, self.epoch, self.life = site, epoch, life
        self.api = MortalApi(site.api, life)
        self.store = MortalStore.of(str(site.root), life)

    async def turn(self) -> None:
        """A look at everything there is."""
        for key in self.site.keys:
            with suppress(SealError):
                await self.look(key)

    async def look(self, key: Key) -> None:
        """One object, one step."""
        await look(
            self.api, self.store, key,
            epoch=self.epoch, read=self.site.read, clock=lambda: self.site.cluster.now,
        )  # fmt: skip


async def look(
    api: ClusterApi,
    store: ArtifactStore,
    key: Key,
    *,
    epoch: int,
    read: Callable[[Key, Any], Any],
    clock: Callable[[], float] = time.time,
) -> RunStatus:
    """A controller's look at one object; the status that it has now."""
    kind, namespace, name = key
    body: Any = await api.get(kind, namespace, name)
    manifest, cluster = read(key, body)
    wanted = Wanted(kind=kind, body=body, manifest=manifest, cluster=cluster)
    world = ClusterWorld(wanted, api=api, store=store, settings=SETTINGS, epoch=epoch, clock=clock)
    return await reconcile(manifest.spec, wanted.status, world)


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
        self._read: dict[str, Any] = {}

    @property
    def keys(self) -> list[Key]:
        """The objects there are."""
        return sorted((key for key in self.api.objects if key[0] in (RUNS, ADAPTATIONS)), key=str)

    def submit(self, body: Any) -> Key:
        """Apply an object."""
        kind = RUNS if body["kind"] == "RestEMRun" else ADAPTATIONS
        made = self.api.put(kind, body | {"metadata": body["metadata"] | {"generation": 1}})
        key = (kind, NAMESPACE, made["metadata"]["name"])
        self.api.plans[made["metadata"]["uid"]] = self.read(key, made)[0].spec
        return key

    def read(self, key: Key, body: Any) -> Any:
        """(manifest, what is said of the cluster); parsed once per spec, which costs the most."""
        parse = run_of_object if key[0] == RUNS else adaptation_of_object
        text = f"{key}{body['metadata']['uid']}{body['spec']}"
        if text not in self._read:
            self._read[text] = parse(copy.deepcopy(body))
        return self._read[text]

    def status(self, key: Key) -> RunStatus:
        """As the object has it."""
        body = self.api.objects[key]
        manifest, cluster = self.read(key, body)
        return Wanted(kind=key[0], body=body, manifest=manifest, cluster=cluster).status

    def elect(self, life: Life | None = None) -> Controller:
        """A controller takes its turn."""
        self.epoch += 1
        return Controller(self, self.epoch, life or Life())

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
        await self.cluster.settle()
        await self.check_peace(self.elect())

    async def check_peace(self, controller: Controller) -> None:
        """I7 and I8: nothing is left at work, and for a minute nobody writes anything."""
        await controller.turn()
        await self.cluster.settle()
        asked, objects = len(self.api.requests), copy.deepcopy(self.api.objects)
        began = self.cluster.now
        while self.cluster.now < began + CALM_SECONDS:
            await controller.turn()
            await self.cluster.step(CALM_SECONDS / 4)
        assert writes(self.api.requests[asked:]) == []
        assert self.api.objects == objects
        for key in self.keys:
            check_nothing_left(self.api, self.api.objects[key]["metadata"]["uid"])

    async def check_all_counted(self) -> None:
        """I2 and I12 of everything that is complete."""
        for key in self.keys:
            status = self.status(key)
            if status.phase is Phase.COMPLETE:
                spec = self.read(key, self.api.objects[key])[0].spec
                await check_counted(self.store, spec, status)

    def results(self) -> dict[str, object]:
        """I9: by name."""
        return {key[2]: result(self.status(key)) for key in self.keys}


def small_run(name: str = "demo", **spec: object) -> Any:
    """A run of one round in two shards."""
    return run_object(name, **({"rounds": 1, "shards": 2} | spec))


def small_adaptation(name: str = "notes", **spec: object) -> Any:
    """An adaptation that makes its questions, in two shards."""
    return adaptation_object(name, **({"shards": 2, "questions": {"source": "self-made"}} | spec))
