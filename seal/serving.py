"""What the commands `python -m generator_svc|trainer_svc|evaluator_svc` share.

Options, loading the model, serving, draining. The options are typer annotations; every one can also
be given by environment variable, which is how a pod gets them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from seal.artifacts import ArtifactStore
from seal.errors import SealError, error_class
from seal.models import resolve_model
from seal.rpc.server import Registration, serve_forever
from seal.settings import EngineSettings
from seal.telemetry import configure_logging, start_metrics_server

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.engine import Engine

log = structlog.get_logger(__name__)

DEFAULTS = EngineSettings()


class Dtype(StrEnum):
    """Compute types, as a command line offers them."""

    AUTO = "auto"
    """bfloat16 where the device multiplies it in hardware, else float32."""
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class LogFormat(StrEnum):
    """How logs are written."""

    AUTO = "auto"
    """Console on a terminal, else JSON."""
    JSON = "json"
    CONSOLE = "console"


ModelOption = Annotated[
    str,
    typer.Option(
        envvar="SEAL_MODEL",
        help="Base model: smollm2-135m, a directory, file:// or hf://org/model[@revision]. "
        "Requests name it exactly as it is given here.",
    ),
]
ArtifactsOption = Annotated[
    str,
    typer.Option(
        envvar="SEAL_ARTIFACTS",
        help="Artifact store that holds the adapters: a directory, file://, s3:// or gs://.",
        show_default=False,
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        envvar="SEAL_ADDRESS",
        help="host:port to listen on (port 0 takes a free one), or unix:/path/to/socket.",
    ),
]
MetricsPortOption = Annotated[
    int,
    typer.Option(
        envvar="SEAL_METRICS_PORT",
        min=0,
        max=65535,
        help="HTTP port of the Prometheus metrics; 0 for none.",
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        envvar="SEAL_DTYPE",
        help="Compute type; auto takes bfloat16 where the device multiplies it in hardware.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(envvar="SEAL_DEVICE", help="torch device, for example cpu or cuda:0.")
]
ThreadsOption = Annotated[
    int, typer.Option(envvar="SEAL_THREADS", min=0, help="CPU threads; 0 takes torch's default.")
]
QueueOption = Annotated[
    int,
    typer.Option(
        envvar="SEAL_MAX_QUEUE",
        min=1,
        help="Requests that may wait; more are refused with RESOURCE_EXHAUSTED.",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline", envvar="SEAL_OFFLINE", help="Never download: the model must be in the cache."
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        envvar="SEAL_GRACE_SECONDS",
        min=0.0,
        help="Seconds that running work may take to end after SIGTERM.",
    ),
]
LogLevelOption = Annotated[
    str, typer.Option(envvar="SEAL_LOG_LEVEL", help="debug, info, warning or error.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        envvar="SEAL_LOG_FORMAT", help="auto writes to a terminal for people, else JSON lines."
    ),
]


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Options of one process, as its command line gave them."""

    model: str
    artifacts: str
    address: str
    metrics_port: int
    engine: EngineSettings
    offline: bool
    grace_seconds: float
    log_level: str
    log_format: LogFormat


@dataclass(frozen=True)
class Backend:
    """What a service stands on."""

    engine: Engine
    store: ArtifactStore
    adapters: AdapterCache


def _nothing_to_suspend() -> None:
    """The default of `Serving.suspend`."""


async def _nothing_to_drain(grace_seconds: float) -> None:
    """The default of `Serving.drain`."""


@dataclass(frozen=True)
class Serving:
    """One service on its backend."""

    register: Registration
    suspend: Callable[[], None] = _nothing_to_suspend
    """Called at the signal: put aside what can go on elsewhere or later. Returns at once."""
    drain: Callable[[float], Awaitable[None]] = _nothing_to_drain
    """Called once the server has stopped, with the seconds that work which no call waits for may
    still take."""


def serve(options: ServingOptions, make: Callable[[Backend], Serving]) -> None:
    """Load the model, serve until SIGTERM or SIGINT, drain.

    Errors end the process with their message and exit code.
    """
    try:
        json = (
            None if options.log_format is LogFormat.AUTO else options.log_format is LogFormat.JSON
        )
        configure_logging(options.log_level, json)
        asyncio.run(_serve(options, make))
    except SealError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error_class(error).exit_code) from error


async def _serve(options: ServingOptions, make: Callable[[Backend], Serving]) -> None:
    store = ArtifactStore(options.artifacts)
    metrics = start_metrics_server(options.metrics_port) if options.metrics_port else None
    try:
        backend = await asyncio.to_thread(_load_backend, options, store)
        try:
            serving = make(backend)
            await serve_forever(
                [serving.register],
                address=options.address,
                grace_seconds=options.grace_seconds,
                on_stopping=serving.suspend,
            )
            await serving.drain(options.grace_seconds)
        finally:
            await asyncio.to_thread(backend.engine.close)
    finally:
        if metrics is not None:
            metrics.stop()


def _load_backend(options: ServingOptions, store: ArtifactStore) -> Backend:
    """The slow part of a start: find, check and load the model."""
    model = resolve_model(options.model, offline=options.offline)
    from seal.adapters import (
        # Torch takes seconds to import: neither for --help nor for a model that is none
        AdapterCache,
    )
    from seal.engine import Engine

    log.info(
        "loading the model",
        model=options.model,
        path=str(model.path),
        device=options.engine.device,
        dtype=options.engine.dtype,
    )
    engine = Engine.load(model.path, name=options.model, settings=options.engine)
    return Backend(engine, store, AdapterCache(store, base_model=engine.name))
