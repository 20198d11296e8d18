"""A controller on a cluster in memory, looked through by the time of that cluster."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster_objects import adaptation, run
from memory_api import MemoryApi
from memory_cluster import MemoryCluster
from pod_work import SyntheticWork
from prometheus_client import CollectorRegistry

from controller_svc.core import RunStatus
from controller_svc.k8s.api import ADAPTATIONS, EVENTS, RUNS, Resource
from controller_svc.k8s.controller import Controller, Key
from controller_svc.k8s.event_post import EventPost
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.job_settings import (
    JobSettings,
    PodSettings,
    StoreAccess,
    TrainerPodSettings,
)
from controller_svc.k8s.objects import ObjectStatus
from controller_svc.k8s.services import Services
from controller_svc.k8s.story import Story
from controller_svc.k8s.wanted import read_wanted
from controller_svc.tracking import Tracker
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.metrics import Metrics

NAMESPACE = "team"
SETTINGS = JobSettings(
    worker=PodSettings(image="seal:1"),
    trainer=TrainerPodSettings(image="seal:1"),
    services=ServiceAddresses(generator="g:1", trainer="t:1", evaluator="e:1"),
    store=StoreAccess(uri="file:///artifacts", claim_name="artifacts"),
)
LOOKS = 60
"""After so many without an end there will be none."""


class Office:
    """One cluster, and controllers that follow each other."""

    def __init__(self, directory: Path) -> None:
        self.api = MemoryApi()
        self.store = ArtifactStore(str(directory))
        self.work = SyntheticWork()
        self.cluster = MemoryCluster(self.api, self.store, self.work)
        self.services: Services | None = None
        self.tracker: Tracker | None = None
        self.epoch = 0
        self.restart()

    def restart(self) -> None:
        """Another controller takes its turn."""
        self.epoch += 1
        self.metrics = Metrics(CollectorRegistry(), clock=lambda: self.cluster.now)
        self.events = EventPost(self.api)
        self.controller = Controller(
            api=self.api,
            store=self.store,
            settings=SETTINGS,
            epoch=self.epoch,
            story=Story(self.events, identity=f"c{self.epoch}"),
            gauges=ObjectGauges(self.metrics),
            services=self.services,
            tracker=self.tracker,
            clock=lambda: self.cluster.now,
        )

    def submit(self, body: Any) -> Key:
        """Apply an object."""
        kind = RUNS if body["kind"] == "RestEMRun" else ADAPTATIONS
        made = self.api.put(kind, body | {"metadata": body["metadata"] | {"generation": 1}})
        return Key(resource=kind, namespace=NAMESPACE, name=made["metadata"]["name"])

    def change(self, key: Key, **spec: object) -> None:
        """What its owner changes."""
        body = self.body(key)
        self.api.change(key.resource, key.name, spec=body["spec"] | spec)

    def body(self, key: Key) -> Any:
        return self.api.objects[(key.resource, key.namespace, key.name)]

    def shown(self, key: Key) -> ObjectStatus:
        """What the object shows."""
        return ObjectStatus.model_validate(self.body(key)["status"])

    def status(self, key: Key) -> RunStatus:
        return read_wanted(key.resource, copy.deepcopy(self.body(key))).status

    def said(self, key: Key, type: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition."""
        found = next(one for one in self.shown(key).conditions if one.type == type)
        return found.status, found.reason, found.message

    def told(self, key: Key) -> list[tuple[str, str]]:
        """(type, reason) of the Events of an object, in order."""
        uid = self.body(key)["metadata"]["uid"]
        return [
            (found["type"], found["reason"])
            for (kind, _, _), found in self.api.objects.items()
            if kind == EVENTS and found["involvedObject"]["uid"] == uid
        ]

    async def look(self, key: Key) -> float | None:
        """A look, and the post of what it tells; who dies at the look posts nothing."""
        try:
            again_seconds = await self.controller.reconcile(key)
        except SealError:
            await self.events.flush()
            raise
        await self.events.flush()
        return again_seconds

    async def to_the_end(self, *keys: Key) -> None:
        """Look and let the cluster go on, until all have ended."""
        for _ in range(LOOKS):
            for key in keys:
                with suppress(SealError):
                    await self.look(key)
            if all(self.status(key).phase.terminal for key in keys):
                return
            await self.cluster.step()
        raise AssertionError([self.status(key) for key in keys])

    def writes(self) -> list[str]:
        """Requests that changed something, so far."""
        return [one for one in self.api.requests if not one.startswith(("get", "list"))]

    def count(self, kind: Resource) -> int:
        return sum(key[0] == kind for key in self.api.objects)


def small_run(name: str = "demo", **spec: object) -> Any:
    """A run of one round in two shards."""
    return run(name, **({"rounds": 1, "shards": 2} | spec))


def small_adaptation(name: str = "notes", **spec: object) -> Any:
    """An adaptation that makes its questions, in two shards."""
    return adaptation(name, **({"shards": 2, "questions": {"source": "self-made"}} | spec))
