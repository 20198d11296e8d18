"""Spans by OpenTelemetry: the only module that imports it."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from seal.rpc.hops import TRACEPARENT_KEY, TRACESTATE_KEY, Hop, Span

_FINE = ("OK", "CANCELLED")
"""Codes of calls in which nothing went wrong: a client may leave."""


def exporting(service: str) -> OpenTelemetry:
    """Spans that are sent by OTLP to where the environment says, in batches from a thread."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)


class OpenTelemetry:
    """Spans by the semantic conventions of RPC."""

    def __init__(self, provider: TracerProvider) -> None:
        """`provider`: what exports them; it ends with the process."""
        self._tracer = provider.get_tracer("seal")
        self._propagator = TraceContextTextMapPropagator()

    def span(self, method: str, hop: Hop, *, answers: bool) -> Span:
        """A span whose parent is the hop's."""
        service, _, name = method.rpartition("/")
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(dict(hop.metadata)),
            kind=SpanKind.SERVER if answers else SpanKind.CLIENT,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "seal.request_id": hop.request_id,
            },
        )
        told: dict[str, str] = {}
        self._propagator.inject(told, set_span_in_context(span))

        def end(code: str) -> None:
            span.set_attribute("rpc.grpc.status", code)
            if code not in _FINE:
                span.set_status(StatusCode.ERROR, code)
            span.end()

        state = told.get(TRACESTATE_KEY, "")
        return Span(Hop(hop.request_id, told.get(TRACEPARENT_KEY, ""), state), end)
