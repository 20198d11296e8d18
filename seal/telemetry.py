"""Logs and metrics, the same in every process.

Logs: structlog and the standard library's loggers end in one handler, JSON lines for machines,
colours on a terminal. What belongs to a call or a shard (run, round, stage) is bound once with
`structlog.contextvars` and then on every line. Metrics: one registry, prefix `seal_`, base units,
no ids in labels; the gRPC server metrics keep the names that the ecosystem's dashboards expect.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from structlog.typing import EventDict

from seal.errors import InvalidInput
from seal.metrics import metrics

LEVELS = ("debug", "info", "warning", "error")
LogFormat = Literal["auto", "json", "console"]
"""How log lines are written: for machines, for people, or for people where stderr is a terminal."""


_SHARED: tuple[Callable[..., Any], ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)
"""What every log line goes through, whoever wrote it."""


def json_formatter() -> logging.Formatter:
    """JSON lines, for a handler of the standard library."""
    return _formatter(
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(serializer=json_line),
    )


def json_line(value: object, **options: Any) -> str:
    """JSON on one line of any reader's, which no terminal obeys; readable beyond ASCII.

    `options`: of `json.dumps`.
    """
    return json.dumps(value, **options, ensure_ascii=False).translate(_JSON_CONTROLS)


def _formatter(*render: Callable[..., Any]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


_LATE_CONTROLS = (*range(0x7F, 0xA0), 0x2028, 0x2029)
"""Steer terminals and end lines too, though no JSON need escape them."""
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in _LATE_CONTROLS}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}


_STEERING = {code: shown for code, shown in _CONTROLS.items() if chr(code) not in "\n\t"}

_CHATTY = ("httpx", "httpcore", "huggingface_hub", "filelock", "fsspec", "asyncio")
"""Loggers of libraries that are heard from warnings on."""
_TELLTALE = ("openai", "botocore", "aiobotocore", "kubernetes")
"""The same of those that show requests whole at debug level: documents, a bucket's credentials."""


def escaped(text: str) -> str:
    """Text with its control characters escaped."""
    return text.translate(_CONTROLS)


def harmless(text: str) -> str:
    """Text of several lines, as others wrote it, for a terminal: it may not steer it."""
    return text.translate(_STEERING)


def _on_one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters: what a caller sent begins no line and steers no terminal.

    Tracebacks stay as they are.
    """
    return {
        key: escaped(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }


def _is_no_cancelled_call(record: logging.LogRecord) -> bool:
    """False for what grpc tells, as an error, of calls that end because their server stops."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def writes_json(format: LogFormat) -> bool:
    """JSON lines or not, on stderr."""
    return not sys.stderr.isatty() if format == "auto" else format == "json"


def configure_logging(
    level: str = "info",
    json: bool | None = None,
    *,
    stream: TextIO | None = None,
    console: Callable[..., str] | None = None,
) -> None:
    """Send all logs of this process to one stream.

    `level`: one of `LEVELS`. `json`: JSON lines or console text; None takes the console on a
    terminal. `stream`: stderr unless given, so that a command's output stays clean. `console`: a
    structlog renderer of console text in the place of structlog's own. Tracebacks are written
    without local variables: those hold documents. Raises InvalidInput for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise InvalidInput(
            f"log level {level!r} is unknown",
            field="level",
            remedy="use one of: " + ", ".join(LEVELS),
        )
    target = stream or sys.stderr
    as_json = not target.isatty() if json is None else json
    own = console or structlog.dev.ConsoleRenderer(
        colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(json_formatter() if as_json else _formatter(_on_one_line, own))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in (*_CHATTY, *_TELLTALE):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_cancelled_call)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


@dataclass(frozen=True)
class MetricsServer:
    """A running `/metrics` endpoint."""

    port: int
    """TCP port that it listens on."""
    _stop: Callable[[], None]

    def stop(self) -> None:
        """Close the port."""
        self._stop()


def start_metrics_server(
    port: int, *, host: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> MetricsServer:
    """Serve the metrics over HTTP from a thread; port 0 takes a free one.

    `host`: this machine alone unless given (`seal.options` decides it for a service). Raises
    InvalidInput naming a port that is in use.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry or metrics.registry)
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise InvalidInput(
            f"metrics port {host}:{port} "
            + ("is in use" if in_use else f"cannot be opened: {error}"),
            field="metrics_port",
            remedy="choose another port with --metrics-port, or stop the process that holds it",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return MetricsServer(port=server.server_port, _stop=stop)


@contextmanager
def serving_metrics(port: int, *, host: str) -> Iterator[None]:
    """Serve the metrics over HTTP until the end of the block; port 0 serves none.

    Raises InvalidInput like `start_metrics_server`.
    """
    server = start_metrics_server(port, host=host) if port else None
    try:
        yield
    finally:
        if server is not None:
            server.stop()
