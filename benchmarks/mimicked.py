"""A namespace whose pods only pretend to work, and what no pod does there.

KWOK ends a pod after a while. What a worker leaves in the store it does not know: the summaries of
a run's shards are written here, two stages before the run comes to them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from controller_svc.core import shards, stages
from controller_svc.k8s.api import RUNS, KubernetesApi, Resource
from controller_svc.k8s.job_settings import (
    JobSettings,
    PodSettings,
    StoreAccess,
    TrainerPodSettings,
)
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.config import run_of_object
from seal.errors import NotFound, PreconditionFailed, Transient
from seal.records import AdapterReference, ScoreSum, Stage
from seal.runs.shards import ShardStore
from seal.runs.task import ShardTask
from seal.settings import RunSpec
from seal.yaml_files import Tree

DEFINITIONS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
NAMESPACES, NODES = Resource("v1", "namespaces"), Resource("v1", "nodes")
CRDS = Path(__file__).resolve().parents[1] / "charts/seal/files/crds"
MIMICKED = "type=kwok"
"""Label of nodes that only pretend."""
WAIT_SECONDS = 1800.0
"""A namespace of some thousand Jobs takes long to go where the machine is busy."""
AHEAD = 2
"""Stages whose summaries are written before the run comes to them."""
SCORE = 0.5


def run_object(name: str, *, rounds: int, shards: int) -> Tree:
    """A run with a warm start, all of whose pods go to mimicked nodes."""
    template: Tree = {
        "nodeSelector": dict([MIMICKED.split("=")]),
        "tolerations": [{"key": "mimic", "operator": "Exists", "effect": "NoSchedule"}],
    }
    spec: Tree = {
        "rounds": rounds,
        "shards": shards,
        "improve": {"warmStart": "gold"},
        "jobTemplate": template,
    }
    return {
        "apiVersion": RUNS.api_version,
        "kind": "RestEMRun",
        "metadata": {"name": name},
        "spec": spec,
    }


def spec_of(body: Tree) -> RunSpec:
    """What a run asks for."""
    return run_of_object(body)[0].spec


@asynccontextmanager
async def healthy_services() -> AsyncIterator[str]:
    """Address of services that say that they are ready, and do nothing."""
    server, ready = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(ready, server)
    for name in ("Generator", "Trainer", "Evaluator"):
        await ready.set(f"seal.v1.{name}Service", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def job_settings(namespace: str, services: str) -> JobSettings:
    """What Jobs are made from: no node looks for the image. `services`: address of all three."""
    return JobSettings(
        worker=PodSettings(image="localhost/seal:none"),
        trainer=TrainerPodSettings(image="localhost/seal:none"),
        services=ServiceAddresses(generator=services, trainer=services, evaluator=services),
        store=StoreAccess(uri=f"file:///{namespace}"),
    )


async def prepare(api: KubernetesApi) -> None:
    """Bring the project's kinds, if the cluster does not know them.

    Raises:
        PreconditionFailed: no node only pretends.

    """
    if not await api.list(NODES, "", labels=MIMICKED):
        raise PreconditionFailed(
            f"no node of the cluster has the label {MIMICKED}",
            remedy="run it by `python -m benchmarks.mimicked_cluster`, or run KWOK, and make nodes "
            "for it that have the taint `mimic` (NoSchedule)",
        )
    for file in sorted(CRDS.glob("*.json")):
        definition: Tree = json.loads(file.read_text(encoding="utf-8"))
        name = str(cast("Tree", definition["metadata"])["name"])
        try:
            await api.get(DEFINITIONS, "", name)
        except NotFound:
            await api.create(DEFINITIONS, "", definition)
        for _ in range(int(WAIT_SECONDS)):
            if _established(await api.get(DEFINITIONS, "", name)):
                break
            await asyncio.sleep(1.0)


def _established(definition: Any) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


@asynccontextmanager
async def namespace(api: KubernetesApi, name: str) -> AsyncIterator[str]:
    """One of its own, that goes with all that is in it before anything else is measured."""
    made = await api.create(NAMESPACES, "", {"metadata": {"name": name}})
    uid = str(cast("Tree", made["metadata"])["uid"])
    try:
        yield name
    except BaseException:
        await api.delete(NAMESPACES, "", name, uid=uid)
        raise
    await api.delete(NAMESPACES, "", name, uid=uid)
    await _until_gone(api, name)


async def _until_gone(api: KubernetesApi, name: str) -> None:
    for _ in range(int(WAIT_SECONDS)):
        try:
            await api.get(NAMESPACES, "", name)
        except NotFound:
            return
        await asyncio.sleep(1.0)
    raise Transient(f"namespace {name} does not go", remedy="look what keeps it")


class Summaries:
    """What the pods of runs would leave in the store."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._written: dict[str, int] = {}

    async def ahead(self, run: str, spec: RunSpec, place: int) -> None:
        """Write those of the stages up to a little beyond `place`, once. `run`: in the store."""
        plan = stages(spec)
        begin = self._written.get(run, 0)
        end = self._written[run] = max(begin, min(place + AHEAD, len(plan)))
        for round, stage in plan[begin:end]:
            for shard in range(shards(spec, stage)):
                await self._write(spec, _task(run, spec, round, stage, shard))

    async def _write(self, spec: RunSpec, task: ShardTask) -> None:
        sha256 = hashlib.sha256(f"{task.name} {task.shard}".encode()).hexdigest()
        trains = task.stage is Stage.IMPROVE
        loops = {"ok": 1} if task.stage in (Stage.ROLLOUT, Stage.VALIDATE) else {}
        summary = task.summary(
            seconds=1.0,
            result_sha256=sha256,
            inner_loops_run=len(loops),
            outcomes=loops,
            scores={"edit": ScoreSum(n=1, total=SCORE)} if loops else {},
            policy=AdapterReference(path=f"adapters/{sha256}", sha256=sha256) if trains else None,
            kept=int(trains),
        )
        place = {"run": task.run, "round": task.round, "stage": task.stage, "shard": task.shard}
        await ShardStore(self._store, **place).commit_summary(summary)  # type: ignore[arg-type]


def _task(run: str, spec: RunSpec, round: int, stage: Stage, shard: int) -> ShardTask:
    return ShardTask(
        run=run,
        stage=stage,
        round=round,
        shard=shard,
        shards=shards(spec, stage),
        attempt=1,
        epoch=1,
        policy=None,
    )
