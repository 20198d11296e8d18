"""What all looks would ask the API server for themselves, asked for once.

The Jobs of an object are taken from the watch that brings objects to the queue anyway: a list of
them costs the server a walk over all Jobs of the namespace. Why pods were refused is asked for all
Jobs of a namespace together, as the server decodes every event of it for that. So a look at a
thousandth run costs what one at the first does.

A view that is a moment old does no harm: what is started has a name that finds what is there, what
is stopped is stopped by its uid, and finished shards are never taken back.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

from controller_svc.k8s.api import EVENTS, JOBS, ClusterApi, ForwardingApi, Resource
from controller_svc.k8s.jobs import RUN_LABEL
from controller_svc.k8s.source import Seen
from seal.yaml_files import Tree

FRESH_SECONDS = 3.0
"""Refusals of pods are asked for no more often."""
REFUSALS = "reason=FailedCreate"
_OF_RUN, _OF_UID = f"{RUN_LABEL}=", "involvedObject.uid="


class SharedReads(ForwardingApi):
    """A `ClusterApi` for the looks of one turn."""

    def __init__(self, api: ClusterApi, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(api)
        self._clock = clock
        self._jobs: defaultdict[tuple[str, str], dict[str, Tree]] = defaultdict(dict)
        self._refusals: dict[str, tuple[float, Sequence[Tree]]] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def see(self, seen: Seen) -> None:
        """Something happened, as the watch tells it."""
        if seen.resource != JOBS:
            return
        metadata = cast("Tree", seen.body["metadata"])
        labels = cast("dict[str, str]", metadata.get("labels") or {})
        place = (str(metadata["namespace"]), labels.get(RUN_LABEL, ""))
        name = str(metadata["name"])
        if seen.kind != "DELETED":
            self._jobs[place][name] = _small(seen.body)
            return
        self._jobs[place].pop(name, None)
        if not self._jobs[place]:
            del self._jobs[place]

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        """Jobs of an object as the watch told them; refusals, asked for once; all else anew."""
        if kind == JOBS and labels.startswith(_OF_RUN) and not fields:
            place = (namespace, labels.removeprefix(_OF_RUN))
            return list(self._jobs[place].values()) if place in self._jobs else []
        if kind == EVENTS and fields.startswith(_OF_UID) and not labels:
            uid = fields.removeprefix(_OF_UID)
            return [one for one in await self._refused(namespace) if _involved(one) == uid]
        return await self._api.list(kind, namespace, labels=labels, fields=fields)

    async def _refused(self, namespace: str) -> Sequence[Tree]:
        async with self._asking[namespace]:
            asked_at, found = self._refusals.get(namespace, (float("-inf"), ()))
            if self._clock() - asked_at >= FRESH_SECONDS:
                found = await self._api.list(EVENTS, namespace, fields=REFUSALS)
                self._refusals[namespace] = (self._clock(), found)
        return found


def _small(job: Tree) -> Tree:
    """A Job without what most of it is: what its pods are made from, and who wrote which field."""
    spec, metadata = (cast("Tree", job.get(part) or {}) for part in ("spec", "metadata"))
    return job | {
        "spec": {name: value for name, value in spec.items() if name != "template"},
        "metadata": {name: value for name, value in metadata.items() if name != "managedFields"},
    }


def _involved(event: Tree) -> str:
    return str(cast("Tree", event["involvedObject"]).get("uid", ""))
