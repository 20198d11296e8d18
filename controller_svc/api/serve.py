"""Everything in one process: the base model, the three services and AdaptationService.

This is what `seal serve` runs, and local mode without a server. The services stand twice: on a
socket of this process's own, through which its adaptations work, and on the address that callers
use. So a crowd of callers takes no place from the work, and the end of the one is not the end of
the other: callers are turned away first, then the work is put aside for the next start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from controller_svc.adaptations import FOLDER
from controller_svc.api.service import register
from controller_svc.local.adaptations import (
    DEFAULT_SETTINGS,
    AdaptationSettings,
    LocalAdaptations,
    local_adaptations,
)
from controller_svc.local.lock import check_free
from controller_svc.local.services import LocalServices, local_services
from seal.artifacts import ArtifactStore
from seal.rpc.server import check_address, start_server
from seal.settings import EngineSettings

log = structlog.get_logger(__name__)

GRACE_SECONDS = 5.0
"""How long running calls may go on once the process is asked to end; watches end at once."""


@asynccontextmanager
async def serve(
    model: str,
    *,
    root: str | Path,
    engine: EngineSettings,
    address: str,
    offline: bool = False,
    on_download: Callable[[str, int, int], None] | None = None,
    adaptations: AdaptationSettings = DEFAULT_SETTINGS,
) -> AsyncIterator[str]:
    """Load the model and serve all four services until the end of the block; gives the address.

    What has not ended when the block does is taken up by the next start on this artifact store.
    `address`: `host:port` (port 0 takes a free one) or `unix:/path`. `root` is the artifact store's
    URI or a directory; `on_download` gets (what, bytes done, bytes in all), from another thread.

    Raises:
        InvalidInput: the model or the address is none.
        Conflict: another process of this machine serves this artifact store.
        Transient: the engine broke within the block.
        SealError: the model cannot be downloaded, or the store is away.

    """
    check_address(address)
    store = ArtifactStore(str(root))
    store.check_place()
    check_free(store, FOLDER)  # before the model, which takes its time
    async with (
        local_services(
            model, root=root, engine=engine, offline=offline, on_download=on_download
        ) as services,
        local_adaptations(
            store, model=model, services=services.addresses, settings=adaptations
        ) as kept,
        front_door(services, adaptations=kept, store=store, address=address) as bound,
    ):
        yield bound


@asynccontextmanager
async def front_door(
    services: LocalServices, *, adaptations: LocalAdaptations, store: ArtifactStore, address: str
) -> AsyncIterator[str]:
    """Serve all four services at an address until the end of the block."""
    door = partial(
        register,
        adaptations=adaptations,
        store=store,
        max_positions=services.engine.limits.max_positions,
    )
    running = await start_server([*services.registrations, door], address=address)
    try:
        yield running.address
    finally:
        await running.leave()
        adaptations.suspend()
        await running.stop(GRACE_SECONDS)
