"""One look at the service that is to serve an adapter: what it serves, and what it is to serve.

What the service is to serve is decided from the service itself (`promotion`), so that a look that
is cut off anywhere is made up for by the next. An adapter counts as served once KServe calls the
service ready for the very spec that was written, and its server lists the adapter by its digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from controller_svc.k8s.api import (
    INFERENCE_SERVICES,
    LLM_INFERENCE_SERVICES,
    ClusterApi,
    Resource,
)
from controller_svc.k8s.publishing.overlay import Path, changed
from controller_svc.k8s.publishing.promotion import (
    Names,
    Revision,
    check_revision,
    names_of,
    promoted,
    service_of,
    withdrawn,
)
from controller_svc.k8s.publishing.service_seen import ServiceSeen
from controller_svc.k8s.publishing.serving import Service
from seal.errors import Conflict, NotFound, PreconditionFailed, Transient
from seal.settings.publish import ServiceKind
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

Build = Callable[[Service], Tree]
"""Makes the object of a service."""
ListModels = Callable[[str], Awaitable[frozenset[str]]]
"""The models that a server lists; raises Transient if it cannot be asked."""

LOOK_SECONDS = 10.0
"""Between two looks at a service that rolls out."""
SETTLED_SECONDS = 300.0
"""Between two looks at whether another adaptation has taken the name, or given it back."""
REFUSED_SECONDS = 120.0
"""Between two looks at what somebody has to put right: a missing kind, a role, a taken name."""
_RESOURCES: dict[ServiceKind, Resource] = {
    "InferenceService": INFERENCE_SERVICES,
    "LLMInferenceService": LLM_INFERENCE_SERVICES,
}
_MODEL, _MAIN = ("spec", "predictor", "model"), ("spec", "template", "containers", "main")
_OWNED: dict[ServiceKind, tuple[Path, ...]] = {
    "InferenceService": tuple((*_MODEL, name) for name in ("args", "resources", "runtime")),
    "LLMInferenceService": (
        ("spec", "baseRefs"),
        ("spec", "model", "lora"),
        (*_MAIN, "args"),
        (*_MAIN, "resources"),
    ),
}
"""Fields that are left out where the settings do not say them."""


class PublicationReason(StrEnum):
    """What became of an adapter, beside the reasons of `seal.errors`. They are API."""

    SERVED = "Served"
    """The service is ready and lists the adapter by its digest."""
    ROLLING_OUT = "RollingOut"
    """KServe does not call the service ready for what it is to serve now."""
    NOT_LISTED = "AdapterNotListed"
    """The service is ready, and its server does not list the adapter, or cannot be asked."""
    SUPERSEDED = "Superseded"
    """An adaptation that ended later is served under the name."""
    WITHDRAWN = "Withdrawn"
    """Its owner took it back."""
    GATE_REFUSED = "GateRefused"
    """The gate did not let it pass."""
    KIND_MISSING = "KServeMissing"
    """The cluster does not know KServe's kind."""


@dataclass(frozen=True)
class Outcome:
    """What a look came to."""

    ready: bool | None
    reason: str
    message: str
    due_seconds: float | None = None
    previous: Revision | None = None


@dataclass(frozen=True)
class Look:
    """One look at the service of a revision."""

    revision: Revision
    namespace: str
    take_back: bool
    """Its owner has withdrawn it."""
    was_served: bool
    """It was found served before."""
    api: ClusterApi
    build: Build | None
    """None: with KServe's SDK."""
    list_models: ListModels

    async def outcome(self) -> Outcome:
        """Read the service, change it if it is not as it should be, and see whether it serves.

        Raises:
            SealError: it cannot be as it should be; of a class that may pass: the next look goes
                on.

        """
        revision = self.revision
        check_revision(revision)
        found = await self._found()
        before = names_of(found)
        names = withdrawn(before, revision) if self.take_back else promoted(before, revision)
        served = names.get(revision.name)
        current = served.current if served is not None else None
        mine = current is not None and current.uid == revision.uid
        if names == before and not mine:
            return _passed_over(current, take_back=self.take_back)
        previous = served.previous if served is not None and mine else None
        if names == before and self.was_served:
            return replace(_served(revision), previous=previous)
        service = await self._written(found, names)
        if service is None:
            reason = PublicationReason.KIND_MISSING
            message = f"the cluster has no {revision.settings.kind}: install KServe"
            return Outcome(False, reason, message, due_seconds=REFUSED_SECONDS)
        if not mine:
            return _passed_over(current, take_back=self.take_back)
        return replace(await self._readiness(service), previous=previous)

    async def _found(self) -> Tree | None:
        settings, namespace = self.revision.settings, self.namespace
        try:
            return await self.api.get(_RESOURCES[settings.kind], namespace, settings.name)
        except NotFound:
            return None

    async def _written(self, found: Tree | None, names: Names) -> Tree | None:
        """The service as the API server has it, once it is as it should be; None without KServe."""
        settings, namespace = self.revision.settings, self.namespace
        build = self.build if self.build is not None else await asyncio.to_thread(_sdk)
        body = build(service_of(names, settings=settings, namespace=namespace))
        resource = _RESOURCES[settings.kind]
        try:
            if found is None:
                found = await self.api.create(resource, namespace, body)
            elif (better := changed(found, body, owned=_OWNED[settings.kind])) is not None:
                found = await self.api.replace(resource, namespace, better)
            else:
                return found
        except NotFound as error:
            if found is None:
                return None
            raise Transient(f"{settings.name} was deleted meanwhile") from error
        except Conflict as error:
            raise Transient(f"{settings.name} was changed meanwhile: {error.message}") from error
        log.info(
            "service written",
            kind=settings.kind,
            service=settings.name,
            adaptation=self.revision.adaptation,
            sha256=self.revision.adapter.sha256,
        )
        return found

    async def _readiness(self, service: Tree) -> Outcome:
        """Whether the service is ready, and its server lists the adapter by its digest."""
        seen = ServiceSeen.model_validate(service)
        if not seen.ready:
            reason = PublicationReason.ROLLING_OUT
            return Outcome(None, reason, seen.why_not, due_seconds=LOOK_SECONDS)
        message = "the service names no address"
        for url in seen.urls:
            try:
                listed = await self.list_models(url)
            except Transient as error:
                message = error.message
                continue
            if self.revision.digest_name in listed:
                return _served(self.revision)
            message = f"{url} does not list {self.revision.digest_name}"
        return Outcome(None, PublicationReason.NOT_LISTED, message, due_seconds=LOOK_SECONDS)


def _sdk() -> Build:
    """What makes objects with KServe's SDK, whose import takes seconds."""
    try:
        from controller_svc.k8s.publishing.kserve import build
    except ImportError as error:
        raise PreconditionFailed(
            f"KServe's SDK cannot be loaded: {error}", remedy="install the extra kserve"
        ) from error
    return build


def _served(revision: Revision) -> Outcome:
    message = f"{revision.settings.name} serves it as {revision.name} and {revision.digest_name}"
    return Outcome(True, PublicationReason.SERVED, message, due_seconds=SETTLED_SECONDS)


def _passed_over(current: Revision | None, *, take_back: bool) -> Outcome:
    """Another adapter is served under the name, or none."""
    now = f"{current.adaptation} is served as {current.name}" if current else "none is served"
    if take_back:
        return Outcome(False, PublicationReason.WITHDRAWN, now)
    return Outcome(False, PublicationReason.SUPERSEDED, now, due_seconds=SETTLED_SECONDS)
