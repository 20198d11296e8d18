"""What Kubernetes and the pods do with the objects of a `MemoryApi`, a step at a time.

The Job controller, the garbage collector, the TTL controller and the nodes in one, by the chances
of a seed: pods end late, are killed, are evicted, or go on as ghosts of a lost node beside their
replacement. What a pod is to do it reads, as a worker does, from its container's variables; what it
has done it commits to the store, under the epoch that it was told.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memory_api import Key, MemoryApi

from controller_svc.core import format_ranges, parse_ranges
from controller_svc.k8s.api import EVENTS, JOBS, PODS
from controller_svc.k8s.children import CONTROLLER_UID_LABEL
from controller_svc.k8s.jobs import CONTAINER, INDEX_ANNOTATION
from seal.artifacts import ArtifactStore
from seal.errors import SealError, error_class
from seal.records import AdapterReference, ShardSummary, Stage
from seal.runs.task import ShardTask
from seal.termination import failure_of

BEGIN_SECONDS = 1_767_225_600.0
"""2026-01-01, when all that the cluster does begins."""
TICK_SECONDS = 5.0
Work = Callable[[ShardTask, ArtifactStore], Awaitable[ShardSummary]]
"""A worker's: does one shard to its end."""


@dataclass(frozen=True, kw_only=True)
class Chances:
    """How probable it is, for a pod in a step."""

    late: float = 0.0
    """It is not done yet, or not gone yet."""
    killed: float = 0.0
    """Its memory limit, which uses up an attempt of its index."""
    evicted: float = 0.0
    """A drained node, which uses up none."""
    lost: float = 0.0
    """Its node is lost: it goes on as a ghost."""
    refused: float = 0.0
    """A quota refuses it."""


CALM = Chances()
STORM = Chances(late=0.3, killed=0.1, evicted=0.15, lost=0.15, refused=0.1)


@dataclass
class Pod:
    """One at work, or its ghost."""

    name: str
    job: Key
    uid: str
    """Of its Job."""
    index: int
    task: ShardTask


@dataclass
class MemoryCluster:
    """Everything of a cluster but its API server and this project's controllers."""

    api: MemoryApi
    store: ArtifactStore
    """As the pods see it."""
    work: Work
    chances: Chances = CALM
    random: random.Random = field(default_factory=lambda: random.Random(0))
    now: float = BEGIN_SECONDS
    live: list[Pod] = field(default_factory=list)
    ghosts: list[Pod] = field(default_factory=list)
    tries: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Attempts that an index has used up."""
    happened: Counter[str] = field(default_factory=Counter)
    number: int = 0

    async def step(self, seconds: float = TICK_SECONDS) -> None:
        """All that happens in so many seconds."""
        self.now += seconds
        for key, job in self._jobs():
            if job["metadata"].get("deletionTimestamp"):
                self._end_job(key, job)
            elif not ended(job):
                await self._run_job(key, job)
        for ghost in list(self.ghosts):
            if not self._chance(self.chances.late):
                self.ghosts.remove(ghost)
                with suppress(SealError):
                    await self._work(ghost)
        self._expire()
        self._collect()

    async def settle(self) -> None:
        """Let whatever is at work and whatever goes come to its end, with no more mishaps."""
        self.chances = CALM
        for _ in range(4):
            await self.step()

    def _jobs(self) -> list[tuple[Key, Any]]:
        return sorted(
            ((key, found) for key, found in self.api.objects.items() if key[0] == JOBS),
            key=lambda one: one[0][1:],
        )

    def _chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    async def _run_job(self, key: Key, job: Any) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        status = job.get("status") or {}
        done = parse_ranges(status.get("completedIndexes", ""))
        failed = parse_ranges(status.get("failedIndexes", ""))
        if spec.get("suspend"):
            self._lose_pods(uid)
            return
        self._start_pods(key, job, done | failed)
        for pod in [one for one in self.live if one.uid == uid]:
            if self._chance(self.chances.late):
                continue
            self.live.remove(pod)
            verdict = await self._end_pod(pod, spec)
            if verdict == "done":
                done |= {pod.index}
            elif verdict == "given up":
                failed |= {pod.index}
        active = sum(pod.uid == uid for pod in self.live)
        body = {
            "active": active,
            "ready": active,
            "completedIndexes": format_ranges(done),
            "failedIndexes": format_ranges(failed),
            "conditions": self._conditions(spec, done, failed),
        }
        if body["conditions"]:
            self._lose_pods(uid)
            body |= {"active": 0, "ready": 0}
        if body != status:
            self.api.change(JOBS, key[2], key[1], status=body)

    def _conditions(self, spec: Any, done: set[int], failed: set[int]) -> list[Any]:
        """The end of a Job, as its controller writes it."""
        if len(failed) > spec["maxFailedIndexes"]:
            return [self._condition("Failed", "MaxFailedIndexesExceeded")]
        if len(done) == spec["completions"]:
            return [self._condition("Complete", "CompletionsReached")]
        if len(done | failed) == spec["completions"]:
            return [self._condition("Failed", "FailedIndexes")]
        return []

    def _condition(self, type: str, reason: str) -> Any:
        return {
            "type": type, "status": "True", "reason": reason, "message": "so it is",
            "lastTransitionTime": self.time(),
        }  # fmt: skip

    def time(self) -> str:
        """Now, in whole seconds as Kubernetes has it."""
        return datetime.fromtimestamp(self.now, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _start_pods(self, key: Key, job: Any, over: set[int]) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        working = {pod.index for pod in self.live if pod.uid == uid}
        for index in range(spec["completions"]):
            if index in over | working or len(working) >= spec["parallelism"]:
                continue
            self.number += 1
            if self._chance(self.chances.refused):
                self._refuse(key, job)
                return
            name = f"{key[2]}-{index}-{self.number}"
            task = task_of(job["spec"]["template"]["spec"], shard=index)
            self.live.append(Pod(name=name, job=key, uid=uid, index=index, task=task))
            working.add(index)

    def _refuse(self, key: Key, job: Any) -> None:
        self.happened["refused"] += 1
        event = {
            "metadata": {"name": f"{key[2]}.{self.number}"},
            "involvedObject": {"uid": job["metadata"]["uid"]},
            "reason": "FailedCreate",
            "message": "pods is forbidden: exceeded quota: small",
            "lastTimestamp": self.time(),
        }
        self.api.put(EVENTS, event, key[1])

    async def _end_pod(self, pod: Pod, spec: Any) -> str:
        """How a pod ends: `done`, `again`, or `given up`."""
        if self._chance(self.chances.lost):
            self.happened["lost"] += 1
            self.ghosts.append(pod)
            return "again"
        if self._chance(self.chances.evicted):
            self.happened["evicted"] += 1
            return "again"
        if self._chance(self.chances.killed):
            self.happened["killed"] += 1
            self._fail(pod, 137, "OOMKilled", "")
            return self._counted(pod, spec)
        try:
            await self._work(pod)
        except SealError as error:
            code = error_class(error).exit_code
            self.happened[f"exit {code}"] += 1
            said = failure_of(error).model_dump_json(by_alias=True, exclude_defaults=True)
            self._fail(pod, code, "Error", said)
            return "given up" if code in (2, 42) else self._counted(pod, spec)
        return "done"

    def _counted(self, pod: Pod, spec: Any) -> str:
        self.tries[pod.uid, pod.index] += 1
        over = self.tries[pod.uid, pod.index] > spec["backoffLimitPerIndex"]
        return "given up" if over else "again"

    async def _work(self, pod: Pod) -> None:
        await self.work(pod.task, self.store)

    def _fail(self, pod: Pod, code: int, reason: str, message: str) -> None:
        """A failed pod stays in sight for as long as its Job."""
        ended = {"exitCode": code, "reason": reason, "message": message}
        body = {
            "metadata": {
                "name": pod.name,
                "labels": {CONTROLLER_UID_LABEL: pod.uid},
                "annotations": {INDEX_ANNOTATION: str(pod.index)},
                "ownerReferences": [{"uid": pod.uid, "controller": True}],
                "creationTimestamp": self.time(),
            },
            "status": {
                "phase": "Failed",
                "containerStatuses": [{"name": CONTAINER, "state": {"terminated": ended}}],
            },
        }
        self.api.put(PODS, body, pod.job[1])

    def _lose_pods(self, uid: str) -> None:
        """They are stopped; one on a lost node does not hear of it."""
        for pod in [one for one in self.live if one.uid == uid]:
            self.live.remove(pod)
            if self._chance(self.chances.lost):
                self.happened["lost"] += 1
                self.ghosts.append(pod)

    def _end_job(self, key: Key, job: Any) -> None:
        """What is deleted in the foreground goes once its pods have gone."""
        self._lose_pods(job["metadata"]["uid"])
        if not self._chance(self.chances.late):
            self.api.remove(key)

    def _expire(self) -> None:
        for key, job in self._jobs():
            ttl, end = job["spec"].get("ttlSecondsAfterFinished"), ended(job)
            if ttl is not None and end and end + ttl <= self.now:
                self.happened["expired"] += 1
                self.api.remove(key)

    def _collect(self) -> None:
        """Owners that were deleted in the foreground go after what they own."""
        uids = {found["metadata"]["uid"]: found for found in self.api.objects.values()}
        kept = set()
        for key, found in list(self.api.objects.items()):
            owners = [one["uid"] for one in found["metadata"].get("ownerReferences", ())]
            for owner in owners:
                kept.add(owner)
                going = owner not in uids or uids[owner]["metadata"].get("deletionTimestamp")
                if going and key[0] == JOBS:
                    self.api.going(key, since=self.time())
                elif owner not in uids:
                    self.api.remove(key)
        for key, found in list(self.api.objects.items()):
            metadata = found["metadata"]
            if key[0] != JOBS and metadata.get("deletionTimestamp") and metadata["uid"] not in kept:
                self.api.remove(key)


def ended(job: Any) -> float:
    """Unix time of a Job's end; 0 while it has not ended."""
    for one in (job.get("status") or {}).get("conditions", ()):
        if one["type"] in ("Complete", "Failed") and one["status"] == "True":
            return datetime.fromisoformat(one["lastTransitionTime"]).timestamp()
    return 0.0


def task_of(pod: Any, *, shard: int) -> ShardTask:
    """What a pod's container is told, as both of the Jobs' programs read it."""
    container = pod["containers"][0]
    flags = (flag.removeprefix("--").partition("=") for flag in container["args"])
    told = {name: value for name, _, value in flags}
    trains = container["command"][-1] == "trainer_svc.improve"
    path = told.get("policy-path", "")
    policy = AdapterReference(path=path, sha256=told.get("policy-sha256", ""))
    return ShardTask(
        run=told["run"],
        stage=Stage.IMPROVE if trains else Stage(told["stage"]),
        round=int(told["round"]),
        shard=shard,
        shards=int(told.get("shards", "1")),
        attempt=int(told["attempt"]),
        epoch=int(told["epoch"]),
        policy=policy if path else None,
    )


def jobs_of(api: MemoryApi, uid: str) -> Iterator[Any]:
    """Jobs that an object owns."""
    for key, found in api.objects.items():
        owners = found["metadata"].get("ownerReferences", ())
        if key[0] == JOBS and any(one["uid"] == uid for one in owners):
            yield found
