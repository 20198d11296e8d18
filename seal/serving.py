"""What the commands `python -m generator_svc|trainer_svc|evaluator_svc|trainer_svc.improve` share.

Look at everything that can be known, load the model, serve, drain, and end with the exit code that
says what happened.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import structlog

from seal.artifacts import ArtifactStore
from seal.backends import ModelWriter, TextBackend
from seal.errors import (
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
    error_class,
)
from seal.models import ResolvedModel, resolve_model
from seal.options import EngineOptions, ProcessOptions, ServiceOptions, TextOptions, asks_for_json
from seal.rpc.lifecycle import Serving, Signals, serve_until_signal, stop_signals
from seal.rpc.server import check_address
from seal.rpc.settings import ServerSettings
from seal.rpc.tracing import configure_tracing
from seal.settings import EngineSettings
from seal.settings.vllm import VllmSettings
from seal.telemetry import configure_logging, start_metrics_server

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.engine import Engine

log = structlog.get_logger(__name__)

Value = TypeVar("Value")
Process = TypeVar("Process", bound=ProcessOptions)
Options = TypeVar("Options", bound=ServiceOptions)
AnyOptions = TypeVar("AnyOptions", bound=EngineOptions)
JobOptions = TypeVar("JobOptions", bound=EngineOptions)
Loaded = TypeVar("Loaded", bound=ModelWriter)

STOPPED_AT_ONCE = 43
"""Exit code after a second signal: work was cut, and its caller should ask again."""


@dataclass(frozen=True)
class Backend(Generic[Loaded]):
    """What a service stands on."""

    engine: Loaded
    store: ArtifactStore
    adapters: AdapterCache


class _StoppedAtOnce(Exception):
    """A signal that leaves no time for anything."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def run(
    kind: type[Options],
    make: Callable[[Options, Backend[Loaded]], Serving],
    load: Callable[[Options], Loaded],
) -> None:
    """A service as a process: options from the command line and the environment, exit code out.

    `load`: what it computes with, `load_engine` or `load_backend`.
    """
    run_process(kind, lambda options: _serve(options, make, load))


def run_process(kind: type[Process], serve: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
    """Whatever serves as a process: options in, exit code out; `serve` returns at its end."""
    as_json = asks_for_json(sys.argv[1:])
    try:
        options = kind.parse(sys.argv[1:])
        as_json = options.writes_json
        configure_logging(options.log_level, as_json)
        with _wrong_input():
            configure_tracing(_service_name(options.program))
        asyncio.run(serve(options))
    except SealError as error:
        _say(error, as_json=as_json)
        sys.exit(error_class(error).exit_code)


def run_job(
    kind: type[JobOptions],
    work: Callable[[JobOptions, Backend[Engine], Signals], Coroutine[Any, Any, None]],
) -> None:
    """A job as a process: the model is loaded, the work is done, the exit code says how it ended.

    `work` takes the signals that come meanwhile; one that comes before ends the process with 43.
    """
    as_json = asks_for_json(sys.argv[1:])
    try:
        options = kind.parse(sys.argv[1:])
        as_json = options.writes_json
        configure_logging(options.log_level, as_json)
        with _wrong_input():
            configure_tracing(_service_name(options.program))
        asyncio.run(_work(options, work))
    except SealError as error:
        _say(error, as_json=as_json)
        leave(error_class(error).exit_code)


def _service_name(program: str) -> str:
    """What traces call a process: the module that was started."""
    return program.rpartition(" ")[2]


async def _work(
    options: JobOptions,
    work: Callable[[JobOptions, Backend[Engine], Signals], Coroutine[Any, Any, None]],
) -> None:
    async with stop_signals() as signals:
        try:
            with _wrong_input():
                loading = asyncio.to_thread(_load, options, load_engine)
                backend = await _unless_stopped(loading, signals)
        except _StoppedAtOnce:
            leave(STOPPED_AT_ONCE)
        await work(options, backend, signals)
        await asyncio.to_thread(backend.engine.close)


async def _serve(
    options: Options,
    make: Callable[[Options, Backend[Loaded]], Serving],
    load: Callable[[Options], Loaded],
) -> None:
    async with stop_signals() as signals:
        try:
            await _serve_and_drain(options, make, load, signals)
        except _StoppedAtOnce as stopped:
            leave(stopped.exit_code)


async def _serve_and_drain(
    options: Options,
    make: Callable[[Options, Backend[Loaded]], Serving],
    load: Callable[[Options], Loaded],
    signals: Signals,
) -> None:
    check_address(options.address)
    metrics = (
        start_metrics_server(options.metrics_port, host=options.metrics_host)
        if options.metrics_port
        else None
    )
    try:
        with _wrong_input():
            backend = await _unless_stopped(asyncio.to_thread(_load, options, load), signals)
        await _serve_backend(options, make(options, backend), backend.engine, signals)
        await asyncio.to_thread(backend.engine.close)
    finally:
        if metrics is not None:
            metrics.stop()


async def _serve_backend(
    options: ServiceOptions, serving: Serving, engine: ModelWriter, signals: Signals
) -> None:
    """Serve until a signal; a broken engine ends the process, whatever still hangs in it."""
    try:
        in_order = await serve_until_signal(
            serving,
            address=options.address,
            signals=signals,
            settings=options.part(ServerSettings),
            grace_seconds=options.grace_seconds,
            broken=lambda: engine.broken,
        )
    except Transient as error:
        _say(error, as_json=options.writes_json)
        leave(error_class(error).exit_code)
    if not in_order:
        raise _StoppedAtOnce(STOPPED_AT_ONCE)


def load_engine(options: EngineOptions) -> Engine:
    """The engine with the model that `--model` names."""
    model = _model(options)
    from seal.engine import Engine  # torch takes seconds to import: not for a model that is none

    return Engine.load(
        model.path, name=options.model, settings=options.part(EngineSettings), base=model.base
    )


def load_backend(options: TextOptions) -> TextBackend:
    """What `--backend` names, with the model that `--model` names."""
    if options.backend == "engine":
        return load_engine(options)
    model = _model(options)
    from seal.vllm.load import load_vllm

    return load_vllm(
        model.path,
        name=options.model,
        settings=options.part(EngineSettings),
        own=options.part(VllmSettings),
        base=model.base,
    )


def _model(options: EngineOptions) -> ResolvedModel:
    """The model, found or downloaded."""
    model = resolve_model(options.model, offline=options.offline)
    log.info(
        "loading the model",
        model=options.model,
        path=str(model.path),
        device=options.device,
        dtype=options.dtype,
    )
    return model


def _load(options: AnyOptions, load: Callable[[AnyOptions], Loaded]) -> Backend[Loaded]:
    """The slow part of a start: find, check and load the model."""
    store = ArtifactStore(options.artifacts)
    if options.writes:
        store.check()
    else:
        store.exists("probe")  # one that cannot be reached is found now, not by the first request
    engine = load(options)
    from seal.adapters import (
        # Torch takes seconds to import: neither for --help nor for a model that is none
        AdapterCache,
    )

    return Backend(engine, store, AdapterCache(store, base=engine.base))


async def _unless_stopped(work: Coroutine[Any, Any, Value], signals: Signals) -> Value:
    """Do the work; a signal does not wait for it."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(signals.get())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        raise _StoppedAtOnce(0)
    stopped.cancel()
    return working.result()


@contextmanager
def _wrong_input() -> Iterator[None]:
    """What does not exist or is not installed is the caller's mistake while a process starts."""
    try:
        yield
    except (NotFound, PreconditionFailed) as error:
        raise InvalidInput(error.message, remedy=error.remedy, field=error.field) from error


def _say(error: SealError, *, as_json: bool) -> None:
    """Why the process ends, on stderr: for people, or as one more line of JSON."""
    if not as_json:
        sys.stderr.write(f"error: {error}\n")
        return
    row = error_class(error)
    facts = {
        "level": "error",
        "event": "the process ends",
        "message": error.message,
        "remedy": error.remedy,
        "field": error.field,
        "reason": row.reason,
        "exit_code": row.exit_code,
        "timestamp": datetime.now(UTC).isoformat(),
    }
    sys.stderr.write(json.dumps(facts, ensure_ascii=False) + "\n")


def leave(exit_code: int) -> NoReturn:
    """End the process without waiting for any thread.

    A load, a step or a write may take minutes, or hang.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
