"""How soon what the watch tells is worth a look.

A Job says half a dozen things while its pods start and end, and of an object the watch tells each
status that the controller itself has written. Looks at all of that would be most of the looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from controller_svc.k8s.api import JOBS, Resource
from controller_svc.k8s.looking import JobSeen
from controller_svc.k8s.source import Seen
from seal.yaml_files import Tree

NOW = 0.0
SOON_SECONDS = 2.0
"""A new Job, and what only counts its pods, is looked at after so long."""
Place = tuple[Resource, str, str]


@dataclass
class News:
    """What was told last of each object and Job."""

    _told: dict[Place, object] = field(default_factory=dict)

    def after_seconds(self, seen: Seen) -> float | None:
        """After how many seconds to look at the object, or at the Job's owner; None for no look."""
        metadata: Any = seen.body["metadata"]
        place = (seen.resource, str(metadata["namespace"]), str(metadata["name"]))
        before = self._told.pop(place, None)
        if seen.kind == "DELETED":
            return NOW
        of_job = seen.resource == JOBS
        told = self._told[place] = _of_job(seen.body) if of_job else _of_object(seen.body)
        if seen.kind == "LISTED":
            return NOW
        if isinstance(told, _Job) and (before is None or isinstance(before, _Job)):
            if before is not None and before.decides != told.decides:
                return NOW
            return SOON_SECONDS if before != told else None
        return NOW if before != told else None


@dataclass(frozen=True)
class _Job:
    """What is compared of a Job."""

    decides: tuple[object, ...]
    """Somebody may have to act on it."""
    counts: tuple[object, ...]
    """It tells how far the pods are."""


def _of_job(body: Tree) -> _Job:
    job = JobSeen.model_validate(body)
    end, status, metadata = job.end, job.status, job.metadata
    ended = end.type if end is not None else ""
    return _Job(
        decides=(
            metadata.uid,
            metadata.deletion_timestamp,
            job.spec.suspend,
            ended,
            status.failed_indexes,
        ),
        counts=(status.start_time, status.active, status.ready, status.completed_indexes),
    )


def _of_object(body: Tree) -> object:
    """All that its owner may change, and not the status, which is the controller's own."""
    metadata = cast("Tree", body["metadata"])
    told = (metadata.get(name) for name in ("uid", "deletionTimestamp", "annotations"))
    return *told, body.get("spec")
