"""A sample of the deaths on a real API server, with Kubernetes' own Jobs and garbage collector.

Nodes there are none: a pod's work is done by the test, which writes its status as a kubelet does.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from fault_site import EVERYTHING, controller_of, small_run
from invariants import result
from kubernetes.aio import config
from memory_api import Key, Killed
from mortal import Life, MortalApi, MortalStore, dies_at
from pod_work import SyntheticWork
from prometheus_client import CollectorRegistry
from real_pods import RealPods

from controller_svc.core import RunStatus
from controller_svc.k8s.api import JOBS, PODS, RUNS, KubernetesApi
from controller_svc.k8s.controller import Key as ObjectKey
from controller_svc.k8s.event_post import EventPost
from controller_svc.k8s.wanted import read_wanted
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.metrics import Metrics
from seal.runs.task import ShardTask

RUNS_AT_ONCE = 60 if EVERYTHING else 12
END_SECONDS, LOOK_SECONDS, GONE_SECONDS = 150.0, 0.5, 60.0
NAMESPACE = "faults"
METRICS = Metrics(CollectorRegistry())


@pytest.fixture
async def api(seal_cluster: ControlPlane) -> AsyncIterator[KubernetesApi]:
    seal_cluster.kubectl("create", "namespace", NAMESPACE)
    client = await config.new_client_from_config(str(seal_cluster.kubeconfig))
    async with client:
        yield KubernetesApi(client)
    seal_cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


async def test_controllers_killed_anywhere_find_their_jobs_and_what_is_deleted_leaves_nothing(
    api: KubernetesApi, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(19)
    store = ArtifactStore(str(tmp_path))
    shot: set[str] = set()

    def killed(task: ShardTask) -> bool:
        """One pod of the runs whose controller is not killed, for its memory."""
        first = task.run.startswith("run-1-") and not shot
        shot.update({task.name} if first else ())
        return first

    pods = RealPods(api, NAMESPACE, store, SyntheticWork(), killed=killed)
    kubelet = asyncio.create_task(pods.run())
    keys = [await submit(api, number) for number in range(RUNS_AT_ONCE)]
    lives = [None, None, *(chance.randrange(40) for _ in keys[2:])]
    ends = [to_the_end(api, tmp_path, key, at) for key, at in zip(keys, lives, strict=True)]
    statuses, deaths = zip(*await asyncio.gather(*ends), strict=True)
    assert {str(result(status)) for status in statuses} == {str(result(statuses[0]))}
    assert sum(deaths) == RUNS_AT_ONCE - 2 and len(shot) == 1
    assert set(pods.work.done.values()) == {1}
    made = await api.list(JOBS, NAMESPACE)
    per_run = Counter(job["metadata"]["labels"]["seal.dev/run"] for job in made)
    assert set(per_run.values()) == {5}, "each stage has had one Job"
    for key in keys:
        body: Any = await api.get(*key)
        await api.delete(*key, uid=body["metadata"]["uid"])
    await nothing_is_left(api)
    kubelet.cancel()
    with suppress(asyncio.CancelledError):
        await kubelet
    record_property("n", sum(deaths))


async def submit(api: KubernetesApi, number: int) -> Key:
    body = small_run(f"run-{number}")
    body["metadata"]["namespace"] = NAMESPACE
    await api.create(RUNS, NAMESPACE, body)
    return RUNS, NAMESPACE, f"run-{number}"


async def to_the_end(
    api: KubernetesApi, root: Path, key: Key, at: int | None
) -> tuple[RunStatus, int]:
    """Controllers one after another for one run; its last status, and how many have died."""
    deaths, epoch = 0, 1
    place = ObjectKey(resource=key[0], namespace=key[1], name=key[2])
    life = Life() if at is None else Life(dies_at(at))
    async with asyncio.timeout(END_SECONDS):
        while True:
            mortal, store = MortalApi(api, life), MortalStore.of(str(root), life)
            events = EventPost(mortal)
            controller = controller_of(mortal, store, events=events, epoch=epoch, metrics=METRICS)
            try:
                with suppress(SealError):
                    await controller.reconcile(place)
                await events.flush()
            except Killed:
                deaths, epoch, life = deaths + 1, epoch + 1, Life()
                continue
            status = read_wanted(RUNS, await api.get(*key)).status
            if status.phase.terminal:
                return status, deaths
            await asyncio.sleep(LOOK_SECONDS)


async def nothing_is_left(api: KubernetesApi) -> None:
    """I7: what the runs owned goes with them."""
    async with asyncio.timeout(GONE_SECONDS):
        while True:
            left = [await api.list(kind, NAMESPACE) for kind in (RUNS, JOBS, PODS)]
            if not any(left):
                return
            await asyncio.sleep(LOOK_SECONDS)
