"""Spans that are made in this process, and those that others send here by OTLP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest

from seal.rpc.tracing import Untraced, trace_with


@dataclass(frozen=True)
class SpanSeen:
    """A span that has ended."""

    name: str
    kind: str
    """INTERNAL, SERVER, CLIENT."""
    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_id: str
    """Of the span above; empty for none."""
    code: str
    """How it ended."""
    failed: bool
    request_id: str
    facts: dict[str, str | int]
    """What the span says of its work: run, round, stage, shard."""


def _facts(attributes: Mapping[str, Any]) -> dict[str, str | int]:
    return {
        name: attributes[f"seal.{name}"]
        for name in ("run", "round", "stage", "shard")
        if f"seal.{name}" in attributes
    }


@contextmanager
def recorded_spans() -> Iterator[Recorder]:
    """Trace this process for the block; skips the test without the extra otel."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
    pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from seal.rpc.spans import OpenTelemetry

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_with(OpenTelemetry(provider))
    try:
        yield Recorder(exporter)
    finally:
        trace_with(Untraced())


class Recorder:
    """The spans of this process."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> list[SpanSeen]:
        """Those that have ended, by their start."""
        ended = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)
        return [
            SpanSeen(
                name=span.name,
                kind=span.kind.name,
                trace_id=f"{span.context.trace_id:032x}",
                span_id=f"{span.context.span_id:016x}",
                parent_id=f"{span.parent.span_id:016x}" if span.parent else "",
                code=span.attributes.get(
                    "rpc.response.status_code", span.attributes.get("seal.code", "")
                ),
                failed=span.status.status_code.name == "ERROR",
                request_id=span.attributes["seal.request_id"],
                facts=_facts(span.attributes),
            )
            for span in ended
        ]

    async def settled(self) -> list[SpanSeen]:
        """All of them: a call's span ends a moment after the call."""
        before = -1
        while len(self.spans) > before:
            before = len(self.spans)
            await asyncio.sleep(0.1)
        return self.spans


@dataclass
class Receiver:
    """What has come by OTLP."""

    endpoint: str = ""
    spans: list[SpanSeen] = field(default_factory=list)

    async def Export(self, request: Any, context: object) -> Any:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
        from opentelemetry.proto.trace.v1.trace_pb2 import Span

        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    said = {
                        one.key: one.value.string_value or one.value.int_value
                        for one in span.attributes
                    }
                    self.spans.append(
                        SpanSeen(
                            name=span.name,
                            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            code=said.get("rpc.response.status_code", said.get("seal.code", "")),
                            failed=span.status.code == span.status.STATUS_CODE_ERROR,
                            request_id=said["seal.request_id"],
                            facts=_facts(said),
                        )
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """Somewhere to send spans to; skips the test without the extra otel."""
    pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not installed")
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

    receiver, server = Receiver(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    receiver.endpoint = f"http://127.0.0.1:{port}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(0.0)
