"""The three services in one process on a Unix socket, sharing one engine: what local mode runs on.

This is the composition root and the only module that knows all three services. They are the same
servers that run alone on a cluster.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

import evaluator_svc.service
import generator_svc.service
import trainer_svc.service
from controller_svc.worker.clients import ServiceAddresses
from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.engine import Engine
from seal.models import ResolvedModel, resolve_model
from seal.rpc.server import start_server
from seal.settings import EngineSettings
from trainer_svc.trainings import Trainings

log = structlog.get_logger(__name__)

STOP_GRACE_SECONDS = 2.0
"""How long running calls may go on when local mode ends; whatever they leave undone is done by the
resume. A training that keeps checkpoints ends with one, however long its step takes."""


@dataclass(frozen=True, kw_only=True)
class LocalServices:
    """Services that are up."""

    addresses: ServiceAddresses
    model: ResolvedModel
    engine: Engine


@asynccontextmanager
async def local_services(
    model: str,
    *,
    root: str | Path,
    engine: EngineSettings,
    cache_dir: Path | None = None,
    offline: bool = False,
    on_download: Callable[[str, int, int], None] | None = None,
) -> AsyncIterator[LocalServices]:
    """Load the model, start the three services, and stop them at the end of the block.

    `root` is the artifact store's URI or a directory; `on_download` gets (what, bytes done, bytes
    in all), from another thread.

    Raises:
        InvalidInput: the model is not one.
        SealError: it cannot be downloaded.

    """
    resolve = partial(
        resolve_model, model, cache_dir=cache_dir, offline=offline, progress=on_download
    )
    resolved = await asyncio.to_thread(resolve)
    loaded = await asyncio.to_thread(
        partial(Engine.load, resolved.path, name=model, settings=engine, base=resolved.base)
    )
    log.info("engine loaded", model=resolved.name, device=engine.device, slots=engine.slots)
    try:
        async with serve_engine(loaded, root=root) as addresses:
            yield LocalServices(addresses=addresses, model=resolved, engine=loaded)
    finally:
        await asyncio.to_thread(loaded.close)


@asynccontextmanager
async def serve_engine(engine: Engine, *, root: str | Path) -> AsyncIterator[ServiceAddresses]:
    """The three services over an engine that the caller owns."""
    store = ArtifactStore(str(root))
    adapters = AdapterCache(store, base=engine.base)
    trainings = Trainings(engine=engine, store=store, adapters=adapters)
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        server = await start_server(
            [
                partial(generator_svc.service.register, engine=engine, adapters=adapters),
                partial(trainer_svc.service.register, trainings=trainings, adapters=adapters),
                partial(evaluator_svc.service.register, engine=engine, adapters=adapters),
            ],
            address=f"unix:{directory}/seal.sock",
        )
        try:
            yield ServiceAddresses.all_at(server.address)
        finally:
            await server.stop(grace_seconds=STOP_GRACE_SECONDS)
            await trainings.close(grace_seconds=0.0)
