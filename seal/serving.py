"""What the commands `python -m generator_svc|trainer_svc|evaluator_svc|trainer_svc.improve` share.

Look at everything that can be known, load the model, serve, drain, and end with the exit code that
says what happened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from seal.backends import ModelWriter
from seal.errors import RETRY_EXIT_CODE, SealError, Transient, error_class
from seal.loading import Backend, load_engine, open_backend, wrong_input
from seal.options import EngineOptions, ProcessOptions, ServiceOptions, asks_for_json
from seal.rpc.lifecycle import Serving, Signals, serve_until_signal, stop_signals
from seal.rpc.not_ready import not_ready
from seal.rpc.server import check_address
from seal.rpc.settings import ServerSettings
from seal.rpc.tracing import configure_tracing, tracing
from seal.telemetry import configure_logging, json_line, serving_metrics
from seal.termination import failure_of, write_termination

if TYPE_CHECKING:
    from seal.engine import Engine

Value = TypeVar("Value")
Process = TypeVar("Process", bound=ProcessOptions)
Options = TypeVar("Options", bound=ServiceOptions)
JobOptions = TypeVar("JobOptions", bound=EngineOptions)
Loaded = TypeVar("Loaded", bound=ModelWriter)

STOPPED_AT_ONCE = RETRY_EXIT_CODE
"""Exit code after a second signal: work was cut, and its caller should ask again."""


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


def run_process(
    kind: type[Process],
    serve: Callable[[Process], Coroutine[Any, Any, None]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Whatever serves as a process: options in, exit code out; `serve` returns at its end.

    `loop_factory`: makes the event loop; None takes asyncio's own.
    """
    with _begun(kind) as options, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(options))


def run_job(
    kind: type[JobOptions],
    work: Callable[[JobOptions, Backend[Engine], Signals], Coroutine[Any, Any, None]],
) -> None:
    """A job as a process: the model is loaded, the work is done, the exit code says how it ended.

    `work` takes the signals that come meanwhile; one that comes before ends the process with 43.
    A failure is told in the termination message, too.
    """
    with _begun(kind, is_job=True) as options:
        asyncio.run(_work(options, work))


@contextmanager
def _begun(kind: type[Process], *, is_job: bool = False) -> Iterator[Process]:
    """The options of this process, which logs and traces as they say; an error ends it."""
    as_json = asks_for_json(sys.argv[1:])
    try:
        options = kind.parse(sys.argv[1:])
        as_json = options.writes_json
        configure_logging(options.log_level, as_json)
        with wrong_input():
            configure_tracing(_service_name(options.program))
        yield options
    except SealError as error:
        if is_job:
            write_termination(failure_of(error))
        _say(error, as_json=as_json)
        if is_job:
            leave(error_class(error).exit_code)
        sys.exit(error_class(error).exit_code)


def _service_name(program: str) -> str:
    """What traces call a process: the module that was started."""
    return program.rpartition(" ")[2]


async def _work(
    options: JobOptions,
    work: Callable[[JobOptions, Backend[Engine], Signals], Coroutine[Any, Any, None]],
) -> None:
    async with stop_signals() as signals:
        try:
            with wrong_input():
                loading = asyncio.to_thread(open_backend, options, load_engine)
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
    with serving_metrics(options.metrics_port, host=options.metrics_host):
        async with _while_loading(options) as address:
            with wrong_input():
                backend = await _unless_stopped(
                    asyncio.to_thread(open_backend, options, load), signals
                )
        serving = make(options, backend)
        await _serve_backend(options, address, serving, backend.engine, signals)
        await asyncio.to_thread(backend.engine.close)


@asynccontextmanager
async def _while_loading(options: ServiceOptions) -> AsyncIterator[str]:
    """The address to serve at, where a model may be waited for longer than probes have patience.

    Else nothing answers there before the service can.
    """
    if not options.model_wait_seconds:
        yield options.address
        return
    why = f"the base model {options.model} is not loaded yet"
    settings = options.part(ServerSettings)
    async with not_ready(options.address, why=why, settings=settings) as address:
        yield address


async def _serve_backend(
    options: ServiceOptions, address: str, serving: Serving, engine: ModelWriter, signals: Signals
) -> None:
    """Serve until a signal; a broken engine ends the process, whatever still hangs in it."""
    try:
        in_order = await serve_until_signal(
            serving,
            address=address,
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


async def _unless_stopped(work: Coroutine[Any, Any, Value], signals: Signals) -> Value:
    """Do the work; a signal does not wait for it."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(signals.get())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        raise _StoppedAtOnce(0)
    stopped.cancel()
    return working.result()


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
    sys.stderr.write(json_line(facts) + "\n")


def leave(exit_code: int) -> NoReturn:
    """End the process without waiting for any thread, but a moment for its last spans to be sent.

    A load, a step or a write may take minutes, or hang.
    """
    tracing().flush()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
