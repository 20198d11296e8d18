"""Publishing an adapter to KServe: one look at its service, and the step that is next.

It is level-triggered, as all of the controller: what the service is to serve is decided from the
service itself (`promotion`), so that a look that is cut off anywhere is made up for by the next.
An adapter counts as served once KServe calls the service ready for the very spec that was written,
and its server lists the adapter by its digest. From then on nobody looks any more: how the service
fares is told by the service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

import structlog

from controller_svc.core import Phase, RunStatus
from controller_svc.core.conditions import cut
from controller_svc.k8s.api import (
    INFERENCE_SERVICES,
    LLM_INFERENCE_SERVICES,
    ClusterApi,
    Resource,
    is_of_server,
)
from controller_svc.k8s.model_list import served_models
from controller_svc.k8s.objects import MICROSECONDS, ObjectPublication, ObjectStatus
from controller_svc.k8s.overlay import Path, changed
from controller_svc.k8s.promotion import (
    Names,
    Revision,
    check_revision,
    names_of,
    promoted,
    service_of,
    withdrawn,
)
from controller_svc.k8s.service_seen import ServiceSeen
from controller_svc.k8s.serving import Service
from controller_svc.k8s.wanted import Wanted
from seal.errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
    error_class,
)
from seal.records import AdaptationResult
from seal.settings import AdaptationSpec
from seal.settings.cluster import AdaptationClusterSettings
from seal.settings.publish import KServeSettings, ServiceKind
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

Build = Callable[[Service], Tree]
ListModels = Callable[[str], Awaitable[frozenset[str]]]

WITHDRAW_ANNOTATION = "seal.dev/withdraw"
"""Of an adaptation: "true" takes its adapter back, and what was served before returns."""
LOOK_SECONDS = 10.0
"""Between two looks at a service that rolls out."""
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


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a look came to."""

    shown: ObjectPublication
    """For the adaptation's status."""
    due_seconds: float | None
    """After so long another look is worth it; None if there is nothing to wait for."""
    news: bool
    """Whether something became of it since the status that the object has."""


@dataclass(frozen=True)
class _Outcome:
    ready: bool | None
    reason: str
    message: str
    due_seconds: float | None = None
    previous: Revision | None = None


async def publish(
    wanted: Wanted,
    status: RunStatus,
    *,
    api: ClusterApi,
    build: Build | None = None,
    list_models: ListModels = served_models,
    clock: Callable[[], float] = time.time,
) -> Publication | None:
    """Bring an adaptation's service one step nearer; None if there is nothing to publish.

    `build` makes the object of a service; without one it is made with KServe's SDK.

    Raises:
        Retryable: the API server is away or full, or the service was changed meanwhile.

    """
    settings = _settings(wanted)
    result = status.adaptation.result if status.adaptation is not None else None
    if settings is None or status.phase is not Phase.COMPLETE or result is None:
        return None
    revision = _revision(wanted, status, settings, result)
    if revision is None:
        outcome = _Outcome(False, PublicationReason.GATE_REFUSED, result.gate.message)
    else:
        try:
            outcome = await _Look(wanted, revision, api, build, list_models).outcome()
        except SealError as error:
            if isinstance(error, Transient) or is_of_server(error):
                raise
            reason = error_class(error).reason
            outcome = _Outcome(False, reason, str(error), due_seconds=REFUSED_SECONDS)
    shown, before = _shown(wanted, settings, revision, outcome, clock), _before(wanted)
    news = before is None or (before.ready, before.reason) != (shown.ready, shown.reason)
    return Publication(shown=shown, due_seconds=outcome.due_seconds, news=news)


@dataclass(frozen=True)
class _Look:
    """One look at the service of a revision."""

    wanted: Wanted
    revision: Revision
    api: ClusterApi
    build: Build | None
    list_models: ListModels

    async def outcome(self) -> _Outcome:
        """Read the service, change it if it is not as it should be, and see whether it serves."""
        revision = self.revision
        check_revision(revision)
        found = await self._found()
        before = names_of(found)
        take_back = _is_withdrawn(self.wanted)
        names = withdrawn(before, revision) if take_back else promoted(before, revision)
        served = names.get(revision.name)
        current = served.current if served is not None else None
        mine = current is not None and current.uid == revision.uid
        if names == before and not mine:
            return _passed_over(current, take_back=take_back)
        previous = served.previous if served is not None and mine else None
        if names == before and _was_served(self.wanted, revision):
            return _Outcome(True, PublicationReason.SERVED, _serving(revision), previous=previous)
        try:
            service = await self._written(found, names)
        except NotFound:
            kind = revision.settings.kind
            message = f"the cluster has no {kind}: install KServe"
            reason = PublicationReason.KIND_MISSING
            return _Outcome(False, reason, message, due_seconds=REFUSED_SECONDS)
        if not mine:
            return _passed_over(current, take_back=take_back)
        return replace(await self._readiness(service), previous=previous)

    async def _found(self) -> Tree | None:
        settings, namespace = self.revision.settings, self.wanted.owner.namespace
        try:
            return await self.api.get(_RESOURCES[settings.kind], namespace, settings.name)
        except NotFound:
            return None

    async def _written(self, found: Tree | None, names: Names) -> Tree:
        """The service as the API server has it, once it is as it should be."""
        settings, namespace = self.revision.settings, self.wanted.owner.namespace
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

    async def _readiness(self, service: Tree) -> _Outcome:
        """Whether the service is ready, and its server lists the adapter by its digest."""
        seen = ServiceSeen.model_validate(service)
        if not seen.ready:
            reason = PublicationReason.ROLLING_OUT
            return _Outcome(None, reason, seen.why_not, due_seconds=LOOK_SECONDS)
        message = "the service names no address"
        for url in seen.urls:
            try:
                listed = await self.list_models(url)
            except Transient as error:
                message = error.message
                continue
            if self.revision.digest_name in listed:
                return _Outcome(True, PublicationReason.SERVED, _serving(self.revision))
            message = f"{url} does not list {self.revision.digest_name}"
        return _Outcome(None, PublicationReason.NOT_LISTED, message, due_seconds=LOOK_SECONDS)


def _sdk() -> Build:
    """What makes objects with KServe's SDK, whose import takes seconds."""
    try:
        from controller_svc.k8s.kserve import build
    except ImportError as error:
        raise PreconditionFailed(
            f"KServe's SDK cannot be loaded: {error}", remedy="install the extra kserve"
        ) from error
    return build


def _settings(wanted: Wanted) -> KServeSettings | None:
    cluster = wanted.cluster
    if not isinstance(cluster, AdaptationClusterSettings) or cluster.publish is None:
        return None
    return cluster.publish.kserve


def _revision(
    wanted: Wanted, status: RunStatus, settings: KServeSettings, result: AdaptationResult
) -> Revision | None:
    """The adapter as it is to be served; None if its gate refused it."""
    spec = wanted.manifest.spec
    if not result.gate.passed or result.adapter is None or not isinstance(spec, AdaptationSpec):
        return None
    return Revision(
        settings=settings,
        adaptation=wanted.owner.name,
        uid=wanted.owner.uid,
        ended_seconds=status.finished_seconds or 0.0,
        adapter=result.adapter,
        rank=spec.adapter.lora.rank,
    )


def _is_withdrawn(wanted: Wanted) -> bool:
    metadata = cast("Mapping[str, Mapping[str, str] | None]", wanted.body["metadata"])
    return (metadata.get("annotations") or {}).get(WITHDRAW_ANNOTATION) == "true"


def _before(wanted: Wanted) -> ObjectPublication | None:
    values = wanted.body.get("status")
    return ObjectStatus.model_validate(values).publication if values else None


def _was_served(wanted: Wanted, revision: Revision) -> bool:
    before = _before(wanted)
    return before is not None and before.ready is True and before.sha256 == revision.adapter.sha256


def _serving(revision: Revision) -> str:
    return f"{revision.settings.name} serves it as {revision.name} and {revision.digest_name}"


def _passed_over(current: Revision | None, *, take_back: bool) -> _Outcome:
    """Another adapter is served under the name, or none."""
    now = f"{current.adaptation} is served as {current.name}" if current else "none is served"
    reason = PublicationReason.WITHDRAWN if take_back else PublicationReason.SUPERSEDED
    return _Outcome(False, reason, now)


def _shown(
    wanted: Wanted,
    settings: KServeSettings,
    revision: Revision | None,
    outcome: _Outcome,
    clock: Callable[[], float],
) -> ObjectPublication:
    before = _before(wanted)
    now = datetime.fromtimestamp(round(clock(), MICROSECONDS), tz=UTC)
    same = before is not None and before.ready == outcome.ready
    return ObjectPublication(
        kind=settings.kind,
        name=settings.name,
        adapter_name=revision.name if revision is not None else "",
        adapter_uri=revision.adapter_uri if revision is not None else "",
        sha256=revision.adapter.sha256 if revision is not None else "",
        previous_adapter_uri=outcome.previous.adapter_uri if outcome.previous is not None else "",
        ready=outcome.ready,
        reason=str(outcome.reason),
        message=cut(outcome.message),
        last_transition_time=before.last_transition_time if before is not None and same else now,
    )
