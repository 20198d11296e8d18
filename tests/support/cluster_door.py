"""The front door of a cluster as its tests use it: replicas over one API server and one store.

The controller's part is played by `tell`, which writes what it would write into the status.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from front_door_harness import publish
from memory_api import MemoryApi

from controller_svc.api.service import register
from controller_svc.core import Phase, RunStatus
from controller_svc.core.state import FinishedStage
from controller_svc.k8s.api import ADAPTATIONS
from controller_svc.k8s.front.adaptation_objects import read_object, view_of
from controller_svc.k8s.front.adaptations import NOTHING_BESIDE, ClusterAdaptations
from controller_svc.k8s.front.informer import Informer
from controller_svc.k8s.objects import ObjectProgress, ObjectPublication, to_object
from controller_svc.k8s.source import Watched
from seal.artifacts import ArtifactStore
from seal.outcomes import Outcome
from seal.records import (
    AdaptationCounts,
    AdaptationEvaluation,
    AdaptationResult,
    GateVerdict,
    Stage,
)
from seal.rpc.client import open_channel
from seal.rpc.server import start_server
from seal.settings.cluster import AdaptationClusterSettings
from seal.v1 import adaptation_pb2_grpc

NAMESPACES = ("default", "team")
MODEL = "fake-model"
NOW_SECONDS = 1_800_000_000.0


@dataclass
class Replica:
    """One process of the front door, and a client of it."""

    stub: adaptation_pb2_grpc.AdaptationServiceStub
    adaptations: ClusterAdaptations
    informer: Informer


@asynccontextmanager
async def replica(
    api: MemoryApi,
    store: ArtifactStore,
    *,
    watching: bool = True,
    listed: bool = True,
    cluster: AdaptationClusterSettings = NOTHING_BESIDE,
    profile: str = "embedded",
) -> AsyncIterator[Replica]:
    """A replica until the end of the block; one that does not watch hears of nothing.

    `listed`: False where the API server has refused to list the namespaces.
    """
    informer, ready = Informer(), asyncio.Event()
    adaptations = ClusterAdaptations(
        api,
        store,
        model=MODEL,
        profile=profile,
        namespaces=NAMESPACES,
        informer=informer,
        cluster=cluster,
    )
    watch = asyncio.create_task(
        api.watch(
            [Watched(resource=ADAPTATIONS)],
            NAMESPACES,
            informer.on_event,
            ready=ready,
            on_listed=informer.on_listed if listed else lambda namespace: None,
        )
    )
    await ready.wait()
    if not watching:
        watch.cancel()
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        running = await start_server(
            [partial(register, adaptations=adaptations, store=store)],
            address=f"unix:{directory}/socket",
        )
        try:
            async with open_channel(running.address) as channel:
                stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
                yield Replica(stub, adaptations, informer)
        finally:
            adaptations.suspend()
            await running.stop(0.5)
            await adaptations.close()
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch


@asynccontextmanager
async def collected(api: MemoryApi) -> AsyncIterator[None]:
    """What is being deleted owns nothing, and goes a moment later."""

    async def collect() -> None:
        while True:
            await asyncio.sleep(0.01)
            for kind, namespace, name in list(api.objects):
                if "deletionTimestamp" in api.objects[(kind, namespace, name)]["metadata"]:
                    api.gone(kind, name, namespace)

    task = asyncio.create_task(collect())
    try:
        yield
    finally:
        task.cancel()


def begun(status: RunStatus) -> RunStatus:
    """The first stage is at work."""
    return status.model_copy(
        update={"phase": Phase.RUNNING, "stage": Stage.PREPARE, "started_seconds": NOW_SECONDS}
    )


def prepared(status: RunStatus) -> RunStatus:
    """The documents are read."""
    assert status.adaptation is not None
    adaptation = status.adaptation.model_copy(
        update={
            "prepared": AdaptationCounts(documents=1, passages=2, held_out_questions=3),
            "stages": (_finished(Stage.PREPARE),),
        }
    )
    return begun(status).model_copy(update={"stage": Stage.ROLLOUT, "adaptation": adaptation})


def published(status: RunStatus, store: ArtifactStore) -> RunStatus:
    """The adapter is there, and the gate let it pass."""
    before = prepared(status)
    assert before.adaptation is not None
    result = AdaptationResult(
        adapter=publish(store, status.run, "adapter"),
        passages_adapter=publish(store, status.run, "passages"),
        outcomes={"adapter": Outcome.OK, "passages": Outcome.OK},
        rows={"edit": 7, "passage": 2},
        evaluation=AdaptationEvaluation(questions=2, self_made=True),
        gate=GateVerdict(passed=True, message="by 0.4"),
    )
    stages = tuple(map(_finished, (Stage.PREPARE, Stage.ROLLOUT, Stage.ADAPT)))
    adaptation = before.adaptation.model_copy(update={"result": result, "stages": stages})
    return before.model_copy(
        update={
            "phase": Phase.COMPLETE,
            "stage": None,
            "adaptation": adaptation,
            "finished_seconds": NOW_SECONDS + 60,
        }
    )


def status_of(body: Any) -> RunStatus:
    """The status of an object, or that of the beginning."""
    return view_of(body, read_object(body)[0]).status


def tell(
    api: MemoryApi,
    name: str,
    status: RunStatus,
    *,
    namespace: str = "default",
    percent: int = 0,
    publication: ObjectPublication | None = None,
) -> None:
    """Write a status as the controller does."""
    progress = ObjectProgress(percent=percent)
    shown = to_object(status, generation=1, progress=progress, publication=publication)
    api.change(ADAPTATIONS, name, namespace, status=shown)


def _finished(stage: Stage) -> FinishedStage:
    return FinishedStage(
        stage=stage, tokens={}, engine_seconds={}, seconds=1.5, ended_seconds=NOW_SECONDS + 1
    )
