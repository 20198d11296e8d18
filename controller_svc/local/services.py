"""The three services in one process on a Unix socket, sharing one engine: what local mode runs on.

This is the composition root and the only module that knows all three services. They are the same
servers that run alone on a cluster.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

import evaluator_svc.service
import generator_svc.service
import trainer_svc.service
from controller_svc.local.ending import ends_when
from controller_svc.worker.settings import ServiceAddresses
from evaluator_svc.judging import open_judge
from generator_svc.by_endpoint import open_writer
from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.engine import Engine
from seal.errors import Transient
from seal.models import ResolvedModel, resolve_model
from seal.rpc.server import Registration, start_server
from seal.settings import EditGenerator, EngineSettings, JudgeSettings, LearningSpec
from trainer_svc.trainings import Trainings

if TYPE_CHECKING:
    from evaluator_svc.judge import Judge

log = structlog.get_logger(__name__)

STOP_GRACE_SECONDS = 2.0
"""How long running calls may go on when local mode ends; whatever they leave undone is done by the
resume. A training that keeps checkpoints ends with one, however long its step takes."""


@dataclass(frozen=True, kw_only=True)
class OtherModels:
    """Models beside the one that learns."""

    writer: str = ""
    """Base model that writes edits; empty, or the same, for none."""
    generator: EditGenerator | None = None
    """A model at an endpoint that writes them."""
    judge: JudgeSettings | None = None
    """A model at an endpoint that judges answers."""

    @classmethod
    def of(cls, spec: LearningSpec, *, judge: JudgeSettings | None) -> OtherModels:
        """Those of a run."""
        return cls(writer=spec.writer, generator=spec.edit.generator, judge=judge)


NO_OTHERS = OtherModels()


@dataclass(frozen=True, kw_only=True)
class LocalServices:
    """Services that are up."""

    addresses: ServiceAddresses
    """Where this process itself reaches them."""
    model: ResolvedModel
    engine: Engine
    registrations: tuple[Registration, ...]
    """The same services, for another server of this process."""


@dataclass(frozen=True, kw_only=True)
class EngineServices:
    """Services over one engine that are up."""

    addresses: ServiceAddresses
    registrations: tuple[Registration, ...]


@asynccontextmanager
async def local_services(
    model: str,
    *,
    root: str | Path,
    engine: EngineSettings,
    offline: bool = False,
    on_download: Callable[[str, int, int], None] | None = None,
    others: OtherModels = NO_OTHERS,
) -> AsyncIterator[LocalServices]:
    """Load the model, start the three services, and stop them at the end of the block.

    `root` is the artifact store's URI or a directory; `on_download` gets (what, bytes done, bytes
    in all), from another thread. `others`: a second model that writes has an engine and services of
    its own in this process.

    Raises:
        InvalidInput: the model is not one, or an endpoint's key cannot be read.
        Transient: the engine broke within the block.
        SealError: the model cannot be downloaded.

    """
    load = partial(_engine, settings=engine, offline=offline, on_download=on_download)
    async with AsyncExitStack() as stack:
        resolved, loaded = await stack.enter_async_context(load(model))
        if (judge := open_judge(others.judge)) is not None:
            stack.push_async_callback(judge.close)
        services = await stack.enter_async_context(engine_services(loaded, root=root, judge=judge))
        addresses = services.addresses
        if others.writer and others.writer != model:
            _, writing = await stack.enter_async_context(load(others.writer))
            of_writer = await stack.enter_async_context(serve_engine(writing, root=root))
            addresses = addresses.model_copy(
                update={"generator": of_writer.generator, "writer_trainer": of_writer.trainer}
            )
        if others.generator is not None:
            address = await stack.enter_async_context(
                serve_generator(others.generator, settings=engine, root=root)
            )
            addresses = addresses.model_copy(update={"edit_generator": address})
        yield LocalServices(
            addresses=addresses,
            model=resolved,
            engine=loaded,
            registrations=services.registrations,
        )


@asynccontextmanager
async def _engine(
    model: str,
    *,
    settings: EngineSettings,
    offline: bool,
    on_download: Callable[[str, int, int], None] | None,
) -> AsyncIterator[tuple[ResolvedModel, Engine]]:
    """An engine with a model; the block ends when it breaks."""
    resolve = partial(resolve_model, model, offline=offline, progress=on_download)
    resolved = await asyncio.to_thread(resolve)
    loaded = await asyncio.to_thread(
        partial(Engine.load, resolved.path, name=model, settings=settings, base=resolved.base)
    )
    log.info("engine loaded", model=resolved.name, device=settings.device, slots=settings.slots)
    try:
        async with ends_with(loaded):
            yield resolved, loaded
    finally:
        await asyncio.to_thread(loaded.close)


@asynccontextmanager
async def serve_generator(
    generator: EditGenerator, *, settings: EngineSettings, root: str | Path
) -> AsyncIterator[str]:
    """A generator whose texts a model at an endpoint writes; its address."""
    writer = open_writer(generator, settings=settings)
    try:
        adapters = AdapterCache(ArtifactStore(str(root)), base=writer.base)
        register = partial(generator_svc.service.register, engine=writer, adapters=adapters)
        with tempfile.TemporaryDirectory(prefix="seal-") as directory:
            server = await start_server([register], address=f"unix:{directory}/seal.sock")
            try:
                yield server.address
            finally:
                await server.stop(grace_seconds=STOP_GRACE_SECONDS)
    finally:
        await asyncio.to_thread(writer.close)


@asynccontextmanager
async def ends_with(engine: Engine) -> AsyncIterator[None]:
    """End the block when the engine breaks: workers would wait for hours for services to come back.

    Raises:
        Transient: it broke. What is finished is kept, another process goes on.

    """

    def broken() -> Transient | None:
        if engine.broken is None:
            return None
        return Transient(
            f"the engine is broken: {engine.broken}",
            remedy="resume the run: what is finished is kept",
        )

    async with ends_when(broken):
        yield


@asynccontextmanager
async def serve_engine(engine: Engine, *, root: str | Path) -> AsyncIterator[ServiceAddresses]:
    """The three services over an engine that the caller owns."""
    async with engine_services(engine, root=root) as services:
        yield services.addresses


@asynccontextmanager
async def engine_services(
    engine: Engine, *, root: str | Path, judge: Judge | None = None
) -> AsyncIterator[EngineServices]:
    """The three services over an engine that the caller owns, to be served elsewhere too."""
    store = ArtifactStore(str(root))
    adapters = AdapterCache(store, base=engine.base)
    trainings = Trainings(engine=engine, store=store, adapters=adapters)
    registrations = (
        partial(generator_svc.service.register, engine=engine, adapters=adapters),
        partial(trainer_svc.service.register, trainings=trainings, adapters=adapters),
        partial(evaluator_svc.service.register, engine=engine, adapters=adapters, judge=judge),
    )
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        server = await start_server(registrations, address=f"unix:{directory}/seal.sock")
        try:
            yield EngineServices(
                addresses=ServiceAddresses.all_at(server.address), registrations=registrations
            )
        finally:
            await server.stop(grace_seconds=STOP_GRACE_SECONDS)
            await trainings.close(grace_seconds=0.0)
