"""The adaptations of a laptop: objects in the artifact store, each at work in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import structlog
from pydantic import Field

from controller_svc.adaptations import AdaptationState, Page, View
from controller_svc.local.lock import run_lock
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from seal.artifacts import ArtifactStore
from seal.errors import NotFound
from seal.settings import Settings

log = structlog.get_logger(__name__)

FOLDER = "adaptations"
"""Where the objects lie in the store."""


class AdaptationSettings(Settings):
    """How a laptop keeps its adaptations."""

    max_running: int = Field(default=16, ge=1, le=4096)
    """Adaptations at work at once; more wait for their turn, in the order in which they came."""
    worker: WorkerSettings = WorkerSettings()
    """How their work uses the services."""


DEFAULT_SETTINGS = AdaptationSettings()


@asynccontextmanager
async def local_adaptations(
    store: ArtifactStore,
    *,
    model: str,
    services: ServiceAddresses,
    settings: AdaptationSettings = DEFAULT_SETTINGS,
) -> AsyncIterator[LocalAdaptations]:
    """Take up all adaptations of a store that have not ended, and keep them for the block.

    `model`: the base model as the services name it.

    Raises:
        Conflict: another process of this machine keeps them.
        SealError: the store is away, or an object in it is damaged.

    """
    with run_lock(store, FOLDER):
        async with ServiceClients(services, settings.worker) as clients:
            yield LocalAdaptations(store, model=model, clients=clients, settings=settings)


class LocalAdaptations:
    """All adaptations of one store; belongs to one event loop."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        model: str,
        clients: ServiceClients,
        settings: AdaptationSettings,
    ) -> None:
        self._store, self._model, self._clients = store, model, clients
        self._settings = settings
        self._views: dict[tuple[str, str], View] = {}

    def suspend(self) -> None:
        """End all watches: this process is about to end."""

    async def get(self, namespace: str, name: str) -> View:
        """An adaptation as it is."""
        return self._found(namespace, name)

    async def list(
        self,
        namespace: str,
        *,
        after: str,
        limit: int,
        states: Collection[AdaptationState],
        name_prefix: str,
    ) -> Page:
        """A page, by name."""
        names = sorted(
            name
            for (where, name), view in self._views.items()
            if where == namespace
            and name > after
            and name.startswith(name_prefix)
            and (not states or view.state in states)
        )
        views = tuple(self._views[namespace, name] for name in names[:limit])
        return Page(views=views, more=len(names) > limit)

    async def watch(self, namespace: str, name: str) -> AsyncIterator[View]:
        """The adaptation as it is."""
        yield self._found(namespace, name)

    async def cancel(self, namespace: str, name: str) -> View:
        """Ask that an adaptation stops."""
        return self._found(namespace, name)

    async def delete(self, namespace: str, name: str, *, uid: str, keep_adapters: bool) -> None:
        """Remove an adaptation."""
        self._found(namespace, name)
        del self._views[namespace, name]

    def _found(self, namespace: str, name: str) -> View:
        try:
            return self._views[namespace, name]
        except KeyError:
            raise NotFound(
                f"there is no adaptation {name!r} in namespace {namespace!r}",
                field="name",
                remedy="ListAdaptations names those there are",
            ) from None
