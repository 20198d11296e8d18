"""The part of a node on a real control plane, which has none: pods that work, and how they end.

Kubernetes' own Job controller makes the pods, retries and counts them; here they are given a status
as a kubelet gives it, after a worker's work on the task that their container was told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memory_cluster import Work, task_of

from controller_svc.k8s.api import PODS, ClusterApi
from controller_svc.k8s.jobs import CONTAINER, INDEX_ANNOTATION
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, SealError, error_class
from seal.runs.task import ShardTask
from seal.termination import failure_of

TICK_SECONDS = 0.25
DONE = 0
OOM_KILLED = 137


@dataclass
class RealPods:
    """All pods of a namespace."""

    api: ClusterApi
    namespace: str
    store: ArtifactStore
    work: Work
    killed: Callable[[ShardTask], bool] = lambda task: False
    """Whether a pod meets its memory limit instead."""
    ended: dict[str, int] = field(default_factory=dict)
    """Exit codes by pod."""

    async def run(self) -> None:
        """Let pods work, until cancelled."""
        while True:
            for pod in await self.api.list(PODS, self.namespace, labels="seal.dev/run"):
                await self._look(pod)
            await asyncio.sleep(TICK_SECONDS)

    async def _look(self, pod: Any) -> None:
        metadata = pod["metadata"]
        name = metadata["name"]
        if name in self.ended or metadata.get("deletionTimestamp"):
            return
        index = int(metadata["annotations"][INDEX_ANNOTATION])
        code, said = await self._work(task_of(pod["spec"], shard=index))
        self.ended[name] = code
        state = {
            "exitCode": code,
            "reason": "OOMKilled" if code == OOM_KILLED else "Error" if code else "Completed",
            "message": said,
        }
        container = {
            "name": CONTAINER, "image": "seal:1", "imageID": "", "ready": False,
            "restartCount": 0, "state": {"terminated": state},
        }  # fmt: skip
        phase = "Failed" if code else "Succeeded"
        status = pod["status"] | {"phase": phase, "containerStatuses": [container]}
        try:
            await self.api.replace_status(PODS, self.namespace, pod | {"status": status})
        except (Conflict, NotFound):
            del self.ended[name]  # its Job has touched it: the work is found done

    async def _work(self, task: ShardTask) -> tuple[int, str]:
        """(exit code, termination message)."""
        if self.killed(task):
            return OOM_KILLED, ""
        try:
            await self.work(task, self.store)
        except SealError as error:
            said = failure_of(error).model_dump_json(by_alias=True, exclude_defaults=True)
            return error_class(error).exit_code, said
        return DONE, ""
