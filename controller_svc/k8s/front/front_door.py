"""What a replica of the front door keeps running: one watch, and what tidies up behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog

from controller_svc.k8s.api import ADAPTATIONS, KubernetesApi
from controller_svc.k8s.connect import connect
from controller_svc.k8s.front.adaptations import ClusterAdaptations
from controller_svc.k8s.front.informer import Informer
from controller_svc.k8s.source import Watched, watch
from controller_svc.uploads import UNUSED_SECONDS, sweep_again_and_again
from seal.artifacts import ArtifactStore
from seal.layers import Layer, validated
from seal.settings.cluster import AdaptationClusterSettings
from seal.yaml_files import parse_yaml, read_text

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class FrontDoor:
    """The adaptations of a cluster, and whether they can be told of."""

    adaptations: ClusterAdaptations
    ready: asyncio.Event
    """Set once all has been listed that the API server does not refuse to list."""
    watching: asyncio.Task[NoReturn]
    """The watch, which only a defect ends."""

    def broken(self) -> str | None:
        """Why nothing new is heard of any more; None while the watch goes on."""
        if not self.watching.done():
            return None
        error = None if self.watching.cancelled() else self.watching.exception()
        return f"the watch ended: {type(error).__name__}"


@asynccontextmanager
async def cluster_front_door(
    store: ArtifactStore,
    *,
    model: str,
    profile: str,
    namespaces: Sequence[str],
    cluster: AdaptationClusterSettings,
) -> AsyncIterator[FrontDoor]:
    """Watch the adaptations of these namespaces until the end of the block.

    `model`, `profile`, `cluster`: as `ClusterAdaptations` has them.

    Raises:
        InvalidInput: there is no cluster to talk to.

    """
    async with await connect() as client:
        api, informer, ready = KubernetesApi(client), Informer(), asyncio.Event()
        adaptations = ClusterAdaptations(
            api,
            store,
            model=model,
            profile=profile,
            namespaces=namespaces,
            informer=informer,
            cluster=cluster,
        )
        watched = [Watched(resource=ADAPTATIONS)]
        watching = asyncio.create_task(
            watch(
                watched,
                namespaces,
                informer.on_event,
                client=client,
                ready=ready,
                on_listed=informer.on_listed,
            ),
            name="watch adaptations",
        )
        uploads = partial(adaptations.documents.sweep_uploads, UNUSED_SECONDS)
        tidying = (
            asyncio.create_task(informer.keep_checked(api, namespaces), name="check adaptations"),
            asyncio.create_task(adaptations.deletions.keep_swept(), name="sweep deletions"),
            asyncio.create_task(sweep_again_and_again(uploads), name="sweep uploads"),
        )
        log.info("adaptations of a cluster", namespaces=list(namespaces))
        try:
            yield FrontDoor(adaptations=adaptations, ready=ready, watching=watching)
        finally:
            for task in (watching, *tidying):
                task.cancel()
            await asyncio.gather(watching, *tidying, return_exceptions=True)
            await adaptations.close()


def read_cluster_settings(path: str) -> AdaptationClusterSettings:
    """What a file gives every submitted adaptation; nothing if none is named.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is none, by field and remedy.

    """
    values = parse_yaml(read_text(Path(path), path), where=path) if path else {}
    return validated(AdaptationClusterSettings, (Layer(path, values),))
