"""Publishing an adapter to KServe, once its adaptation has ended and its gate let it pass.

It is level-triggered, as all of the controller. The controller hands in an adaptation that has
ended, and gets what its object is to show and when another look is worth it; how the service fares
once it serves the adapter is told by the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from controller_svc.core import Phase, RunStatus
from controller_svc.core.conditions import cut
from controller_svc.k8s.api import ClusterApi, is_of_server
from controller_svc.k8s.objects import MICROSECONDS, ObjectPublication
from controller_svc.k8s.publishing.model_list import served_models
from controller_svc.k8s.publishing.promotion import Revision
from controller_svc.k8s.publishing.service_look import (
    REFUSED_SECONDS,
    Build,
    ListModels,
    Look,
    Outcome,
    PublicationReason,
)
from controller_svc.k8s.wanted import Wanted
from seal.errors import SealError, Transient, error_class
from seal.records import AdaptationResult
from seal.settings import AdaptationSpec
from seal.settings.cluster import AdaptationClusterSettings
from seal.settings.publish import KServeSettings

WITHDRAW_ANNOTATION = "seal.dev/withdraw"
"""Of an adaptation: "true" takes its adapter back, and what was served before returns."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a look came to."""

    shown: ObjectPublication
    """For the adaptation's status."""
    due_seconds: float | None
    """After so long another look is worth it; None if there is nothing to wait for."""
    news: bool
    """Whether something became of it since the status that the object has."""


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
        outcome = Outcome(False, PublicationReason.GATE_REFUSED, result.gate.message)
    else:
        try:
            look = Look(
                revision=revision,
                namespace=wanted.owner.namespace,
                take_back=_is_withdrawn(wanted),
                was_served=_was_served(wanted, revision),
                api=api,
                build=build,
                list_models=list_models,
            )
            outcome = await look.outcome()
        except SealError as error:
            if isinstance(error, Transient) or is_of_server(error):
                raise
            reason = error_class(error).reason
            outcome = Outcome(False, reason, str(error), due_seconds=REFUSED_SECONDS)
    shown, before = _shown(wanted, settings, revision, outcome, clock), _before(wanted)
    news = before is None or (before.ready, before.reason) != (shown.ready, shown.reason)
    return Publication(shown=shown, due_seconds=outcome.due_seconds, news=news)


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
    return wanted.shown.publication if wanted.shown is not None else None


def _was_served(wanted: Wanted, revision: Revision) -> bool:
    before = _before(wanted)
    return before is not None and before.ready is True and before.sha256 == revision.adapter.sha256


def _shown(
    wanted: Wanted,
    settings: KServeSettings,
    revision: Revision | None,
    outcome: Outcome,
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
