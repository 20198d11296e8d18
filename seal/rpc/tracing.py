"""Spans of calls: none, unless OpenTelemetry is installed and told where to send them.

`OTEL_EXPORTER_OTLP_ENDPOINT` turns it on; all other `OTEL_*` variables mean what they mean to
OpenTelemetry. Without it the trace of a caller is handed on as it came.
"""

from __future__ import annotations

import os
from typing import Protocol

from seal.errors import PreconditionFailed
from seal.rpc.hops import Hop, Span

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE_VARIABLE = "OTEL_SERVICE_NAME"


class Tracing(Protocol):
    """Whoever makes spans."""

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """Begin one. `method`: `package.Service/Method`; `answers`: on the server's side."""


class Untraced:
    """No spans: the hop goes on as it came."""

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """One that nobody sees."""
        return Span(hop)


_tracing: Tracing = Untraced()


def tracing() -> Tracing:
    """That of this process."""
    return _tracing


def trace_with(chosen: Tracing) -> None:
    """Let this process's spans be made so from now on."""
    global _tracing
    _tracing = chosen


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
    trace_with(exporting(os.environ.get(SERVICE_VARIABLE) or service))
