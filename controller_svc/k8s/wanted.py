"""An object of a cluster as its owner wrote it: what is to be done, and how far it has come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import cast

from controller_svc.core import RunStatus, new_status
from controller_svc.k8s.api import RUNS, Resource
from controller_svc.k8s.jobs import Owner
from controller_svc.k8s.kept import Kept
from controller_svc.k8s.objects import ObjectStatus, of_shown, shown_of
from seal.config import adaptation_of_object, run_of_object
from seal.resources import ADAPTATION_KIND, RUN_KIND, Adaptation, RestEMRun
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings
from seal.yaml_files import Tree

_HASH_CHARACTERS = 8
MAX_READ_SPECS = 2048
"""Specs that are kept read; the others are read again at each look."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An object of the API server, read."""

    kind: Resource
    body: Tree
    """As the API server gave it."""
    manifest: RestEMRun | Adaptation
    cluster: ClusterSettings

    @cached_property
    def owner(self) -> Owner:
        """What its Jobs belong to."""
        return owner_of(self.kind, self.body)

    @cached_property
    def status(self) -> RunStatus:
        """Its status; that of what has not started if it has none yet."""
        if self.shown is not None:
            return of_shown(self.shown)
        return new_status(
            self.manifest.spec,
            run=store_name(self.owner),
            now_seconds=created_seconds(self.body),
        )

    @cached_property
    def shown(self) -> ObjectStatus | None:
        """What it shows; None if it has no status yet."""
        return shown_of(self.body)

    @property
    def cancelled(self) -> bool:
        """Its owner wishes it to stop for good."""
        return isinstance(self.cluster, AdaptationClusterSettings) and self.cluster.cancelled


def read_wanted(kind: Resource, body: Tree) -> Wanted:
    """What an object asks for.

    Raises:
        InvalidInput: its spec is none, by field and remedy.

    """
    read = run_of_object if kind == RUNS else adaptation_of_object
    manifest, cluster = read(body)
    return Wanted(kind=kind, body=body, manifest=manifest, cluster=cluster)


class ReadSpecs:
    """Reads objects; those whose spec is the one that it was at the last time are read already.

    A spec is laid over its profile and checked, which costs as much as all else of a look.
    """

    def __init__(self) -> None:
        self._kept: Kept[Wanted] = Kept(MAX_READ_SPECS)

    def read(self, kind: Resource, body: Tree) -> Wanted:
        """What an object asks for. Raises InvalidInput like `read_wanted`."""
        uid, spec = str(_metadata(body)["uid"]), body.get("spec")
        return replace(self._kept.get(uid, spec, lambda: read_wanted(kind, body)), body=body)


def owner_of(kind: Resource, body: Tree) -> Owner:
    """What the Jobs of an object belong to, also of one whose spec cannot be read."""
    metadata = cast("dict[str, str]", body["metadata"])
    return Owner(
        kind=kind_of(kind),
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
    )


def kind_of(resource: Resource) -> str:
    """What an object of the project calls its kind."""
    return RUN_KIND if resource == RUNS else ADAPTATION_KIND


def store_name(owner: Owner) -> str:
    """What a run is called in the store: no other namespace's, and no earlier one of its name."""
    whole = f"{owner.namespace}/{owner.name}/{owner.uid}"
    tail = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{owner.name}-{tail}"


def created_seconds(body: Tree) -> float:
    """Unix time at which the API server took an object."""
    return datetime.fromisoformat(str(_metadata(body)["creationTimestamp"])).timestamp()


def generation_of(body: Tree) -> int:
    """Number of the spec's version."""
    return cast("int", _metadata(body).get("generation", 0))


def is_deleted(body: Tree) -> bool:
    """Whether an object is going; it is in sight until all that it owns has gone."""
    return bool(_metadata(body).get("deletionTimestamp"))


def _metadata(body: Tree) -> Tree:
    return cast("Tree", body["metadata"])
