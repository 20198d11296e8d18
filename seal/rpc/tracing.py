"""Spans of calls and work: none, unless OpenTelemetry is installed and told where to send them.

`OTEL_EXPORTER_OTLP_ENDPOINT` turns it on; the other `OTEL_*` variables mean what they mean to
OpenTelemetry, but that OTLP goes by gRPC alone. Without it the trace of a caller is handed on as it
came.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from seal.errors import PreconditionFailed, SealError, error_class
from seal.rpc.hops import Facts, Hop, Span, within

log = structlog.get_logger(__name__)

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SERVICE_VARIABLE = "OTEL_SERVICE_NAME"


class Tracing(Protocol):
    """Whoever makes spans."""

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """Begin that of a call.

        `method`: `package.Service/Method`; `answers`: on the server's side.
        """

    def work(self, name: str, hop: Hop, facts: Facts) -> Span:
        """Begin that of work within this process."""

    def flush(self) -> None:
        """Send what has not been sent, for a moment at most; every end of a process does it."""


class Untraced:
    """No spans: the hop goes on as it came."""

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """One that nobody sees."""
        return Span(hop)

    def work(self, name: str, hop: Hop, facts: Facts) -> Span:
        """One that nobody sees."""
        return Span(hop)

    def flush(self) -> None:
        """There is nothing to send."""


_tracing: Tracing = Untraced()


def tracing() -> Tracing:
    """That of this process."""
    return _tracing


def trace_with(chosen: Tracing) -> None:
    """Let this process's spans be made so from now on."""
    global _tracing
    _tracing = chosen


@contextmanager
def working(name: str, hop: Hop, **facts: str | int) -> Iterator[Hop]:
    """Do work that belongs to a hop, as one span: the block's calls and log lines belong to it.

    Gives the hop that those are told who do part of the work elsewhere.
    """
    span, code = tracing().work(name, hop, facts), "OK"
    try:
        with within(span.hop):
            yield span.hop
    except BaseException as error:  # it is only looked at
        code = _code_of(error)
        raise
    finally:
        if span.end is not None:
            span.end(code)


def _code_of(error: BaseException) -> str:
    if isinstance(error, SealError):
        return error_class(error).grpc_code
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"


def configure_tracing(service: str) -> None:
    """Trace if the environment says where to. `service`: its name, unless `OTEL_SERVICE_NAME` says.

    Raises PreconditionFailed if OpenTelemetry is wanted but not installed.
    """
    wanted = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), "")
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from seal.rpc.spans import exporting
    except ModuleNotFoundError as error:
        raise PreconditionFailed(
            f"{wanted} asks for traces, which need the package {error.name}",
            field=wanted,
            remedy="install it: pip install 'seal-kubernetes[otel]', or unset the variable",
        ) from error
    protocol = next((name for name in PROTOCOL_VARIABLES if os.environ.get(name)), "")
    if protocol and os.environ[protocol] != "grpc":
        log.warning(
            "spans are sent by gRPC",
            **{protocol: os.environ[protocol]},
            remedy=f"let {wanted} name the collector's port for OTLP by gRPC, usually 4317",
        )
    trace_with(exporting(os.environ.get(SERVICE_VARIABLE) or service))
