"""What all looks would ask the API server for themselves, asked for once.

Objects and their Jobs are taken from the watch that brings objects to the queue anyway: to get each
object before each look is a third of all requests, and a list of its Jobs costs the server a walk
over all Jobs of the namespace. What a look has written it need not be told: the reply is kept until
the watch tells something newer. Why pods were refused is asked for all
Jobs of a namespace together, as the server decodes every event of it for that. So a look at a
thousandth run costs what one at the first does.

A view that is a moment old does no harm: a status is written over the one that was read or not at
all, what is started has a name that finds what is there, what is stopped is stopped by its uid, and
finished shards are never taken back.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

from controller_svc.k8s.api import (
    ADAPTATIONS,
    EVENTS,
    JOBS,
    RUNS,
    ClusterApi,
    ForwardingApi,
    Resource,
    name_of,
)
from controller_svc.k8s.jobs import RUN_LABEL
from controller_svc.k8s.source import Seen
from seal.errors import Conflict, NotFound
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
        self._objects: dict[tuple[Resource, str, str], Tree] = {}
        self._outdated: set[tuple[Resource, str, str]] = set()
        """Objects of which the API server has something newer, or none, than was told."""
        self._refusals: dict[str, tuple[float, Sequence[Tree]]] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def see(self, seen: Seen) -> None:
        """Something happened, as the watch tells it."""
        if seen.resource != JOBS:
            self._see_object(seen)
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

    def _see_object(self, seen: Seen) -> None:
        metadata = cast("Tree", seen.body["metadata"])
        place = (seen.resource, str(metadata["namespace"]), name_of(seen.body))
        if seen.kind in ("DELETED", "LISTED"):  # a list is the truth, whatever was known
            self._objects.pop(place, None)
            self._outdated.discard(place)
        if seen.kind != "DELETED":
            self._keep(place, seen.body)

    def _keep(self, place: tuple[Resource, str, str], body: Tree) -> None:
        """The watch tells of a status after the reply to it has come: older ones are passed over.

        Versions are numbers that grow (Kubernetes 1.35 promises what always was so).
        """
        known = self._objects.get(place)
        if known is None or _version(known) <= _version(body):
            self._objects[place] = body
            self._outdated.discard(place)

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        """A run or an adaptation as the watch told it, or as it was written; all else anew.

        One that has gone is not asked for: with its namespace the right to ask goes, too, and a
        refusal would say nothing.
        """
        place = (kind, namespace, name)
        if (known := self._objects.get(place)) is not None:
            return known
        if kind in (RUNS, ADAPTATIONS) and place not in self._outdated:
            raise NotFound(f"there is no {name} of {kind.plural} in {namespace}")
        return await self._api.get(kind, namespace, name)

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put a status in another's place; what was known is forgotten if it was out of date."""
        place = (kind, namespace, name_of(body))
        try:
            written = await self._api.replace_status(kind, namespace, body)
        except (Conflict, NotFound):
            if self._objects.pop(place, None) is not None:
                self._outdated.add(place)
            raise
        if place in self._objects:
            self._keep(place, written)
        return written

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


def _version(body: Tree) -> int:
    version = str(cast("Tree", body["metadata"]).get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0


def _involved(event: Tree) -> str:
    return str(cast("Tree", event["involvedObject"]).get("uid", ""))
