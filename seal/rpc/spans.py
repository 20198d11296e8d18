"""Spans by OpenTelemetry: the only module that imports it."""

from __future__ import annotations

import atexit
import threading

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from seal.rpc.hops import TRACEPARENT_KEY, TRACESTATE_KEY, Facts, Hop, Span

_FINE = ("OK", "CANCELLED")
"""Codes of calls in which nothing went wrong: a client may leave."""
LAST_SPANS_SECONDS = 2.0
"""The longest that the end of a process waits for its last spans to be sent."""


def exporting(service: str) -> OpenTelemetry:
    """Spans that are sent by OTLP to where the environment says, in batches from a thread.

    A collector that is away costs nothing: what it does not take is dropped. OpenTelemetry's own
    end would wait for it half a minute.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    spans = OpenTelemetry(provider)
    atexit.register(spans.flush)
    return spans


class OpenTelemetry:
    """Spans by the semantic conventions of RPC, and those of work between the calls."""

    def __init__(self, provider: TracerProvider) -> None:
        """`provider`: what exports them; it ends with the process."""
        self._provider = provider
        self._tracer = provider.get_tracer("seal")
        self._propagator = TraceContextTextMapPropagator()

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """A span whose parent is the hop's."""
        service, _, name = method.rpartition("/")
        kind = SpanKind.SERVER if answers else SpanKind.CLIENT
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        return self._begin(method, hop, kind, facts, code_attribute="rpc.response.status_code")

    def work(self, name: str, hop: Hop, facts: Facts) -> Span:
        """A span whose parent is the hop's."""
        own = {f"seal.{fact}": value for fact, value in facts.items()}
        return self._begin(name, hop, SpanKind.INTERNAL, own, code_attribute="seal.code")

    def flush(self) -> None:
        """Send what is waiting, for a moment at most."""
        sending = threading.Thread(
            target=self._provider.force_flush, name="last spans", daemon=True
        )
        sending.start()
        sending.join(LAST_SPANS_SECONDS)

    def _begin(
        self, name: str, hop: Hop, kind: SpanKind, facts: Facts, *, code_attribute: str
    ) -> Span:
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(dict(hop.metadata)),
            kind=kind,
            attributes={**facts, "seal.request_id": hop.request_id},
        )
        told: dict[str, str] = {}
        self._propagator.inject(told, set_span_in_context(span))

        def end(code: str) -> None:
            span.set_attribute(code_attribute, code)
            if code not in _FINE:
                span.set_status(StatusCode.ERROR, code)
            span.end()

        state = told.get(TRACESTATE_KEY, "")
        return Span(Hop(hop.request_id, told.get(TRACEPARENT_KEY, ""), state), end)
