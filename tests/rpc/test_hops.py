"""Request id and trace go along through all hops: in metadata, in logs and as spans."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import structlog
from service_harness import DEADLINE_SECONDS, read_all, serving
from spans import Recorder, recorded_spans

from seal.errors import PreconditionFailed
from seal.rpc import tracing as tracing_module
from seal.rpc.client import open_blocking_channel, open_channel
from seal.rpc.hops import Hop, current_hop, hop_of, within
from seal.rpc.server import start_server
from seal.rpc.tracing import Untraced, configure_tracing, trace_with
from seal.telemetry import configure_logging
from seal.v1 import generator_pb2, generator_pb2_grpc

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
SENT = (("x-request-id", "mine-1"), ("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2"))
SERVICE = "seal.v1.GeneratorService"


class Relay(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers by asking the next service, if there is one; remembers what it was sent."""

    def __init__(self, next_address: str = "") -> None:
        self._next = next_address
        self.heard: list[dict[str, str | bytes]] = []

    async def GenerateText(
        self,
        request: generator_pb2.GenerateTextRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[generator_pb2.GenerateTextResponse]:
        self.heard.append(dict(context.invocation_metadata() or ()))
        structlog.get_logger().info("at work")
        if request.prompt == "fail":
            raise PreconditionFailed("not today", remedy="come back")
        if self._next:
            async with open_channel(self._next) as channel:
                stub = generator_pb2_grpc.GeneratorServiceStub(channel)
                async for response in stub.GenerateText(request, timeout=DEADLINE_SECONDS):
                    yield response
        else:
            yield generator_pb2.GenerateTextResponse(delta="done")

    def register(self, server: grpc.aio.Server) -> str:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)
        return SERVICE


@pytest.fixture
async def relays(tmp_path: object) -> AsyncIterator[tuple[Relay, Relay, grpc.aio.Channel]]:
    """Two services, of which the first asks the second, and a channel to the first."""
    second = Relay()
    server = await start_server([second.register], address=f"unix:{tmp_path}/second")
    first = Relay(server.address)
    try:
        async with serving(first.register) as channel:
            yield first, second, channel
    finally:
        await server.stop(0.0)


async def ask(
    channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = (), prompt: str = "x"
) -> None:
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    request = generator_pb2.GenerateTextRequest(run="demo", prompt=prompt)
    await read_all(stub.GenerateText(request, timeout=DEADLINE_SECONDS, metadata=metadata))


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging("info", json=True, stream=stream)
    yield stream
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_request_id_and_trace_reach_the_last_service_and_every_log_line(
    relays: tuple[Relay, Relay, grpc.aio.Channel], logged: io.StringIO
) -> None:
    first, second, channel = relays
    with within(Hop("mine-1", TRACEPARENT, "a=1,b=2")):
        await ask(channel)
    for relay in (first, second):
        (heard,) = relay.heard
        assert {key: heard[key] for key, _ in SENT} == dict(SENT)
    told = [line for line in lines(logged) if line["event"] in ("at work", "call ended")]
    assert len(told) == 4
    for line in told:
        assert (line["x_request_id"], line["trace_id"], line["run"]) == ("mine-1", TRACE, "demo")


async def test_who_sends_none_is_given_a_request_id_that_all_services_know(
    relays: tuple[Relay, Relay, grpc.aio.Channel],
) -> None:
    first, second, channel = relays
    await ask(channel)
    await ask(channel)
    ids = [heard["x-request-id"] for heard in first.heard]
    assert ids == [heard["x-request-id"] for heard in second.heard]
    assert len(set(ids)) == 2 and all(ids)
    assert "traceparent" not in first.heard[0]


async def test_the_metadata_of_a_caller_goes_along_with_the_hop(
    relays: tuple[Relay, Relay, grpc.aio.Channel],
) -> None:
    first, second, channel = relays
    await ask(channel, (("x-seal-caller", "me"), ("x-request-id", "of another hop")))
    (heard,) = first.heard
    assert heard["x-seal-caller"] == "me"
    assert heard["x-request-id"] != "of another hop"
    assert "x-seal-caller" not in second.heard[0]


async def test_a_blocking_channel_carries_the_hop_too(
    relays: tuple[Relay, Relay, grpc.aio.Channel], tmp_path: object
) -> None:
    _, second, _ = relays

    def ask_blocking() -> list[str]:
        with open_blocking_channel(f"unix:{tmp_path}/second") as channel:
            stub = generator_pb2_grpc.GeneratorServiceStub(channel)
            request = generator_pb2.GenerateTextRequest(prompt="x")
            responses = stub.GenerateText(
                request, timeout=DEADLINE_SECONDS, metadata=(("x-seal-caller", "me"),)
            )
            return [response.delta for response in responses]

    with within(Hop("mine-2")):
        assert await asyncio.to_thread(ask_blocking) == ["done"]
    (heard,) = second.heard
    assert (heard["x-request-id"], heard["x-seal-caller"]) == ("mine-2", "me")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (SENT, ("mine-1", TRACEPARENT, "a=1,b=2")),
        ((("traceparent", TRACEPARENT),), (None, TRACEPARENT, "")),
        ((("x-request-id", "a" * 129),), (None, "", "")),
        ((("x-request-id", "line\nbreak"),), (None, "", "")),
        ((("x-request-id", "é"),), (None, "", "")),
        ((("x-request-id", b"bytes"),), (None, "", "")),
        ((("traceparent", f"00-{'0' * 32}-{SPAN}-01"),), (None, "", "")),
        ((("traceparent", f"00-{TRACE}-{'0' * 16}-01"),), (None, "", "")),
        ((("traceparent", f"ff-{TRACE}-{SPAN}-01"),), (None, "", "")),
        ((("traceparent", f"00-{TRACE.upper()}-{SPAN}-01"),), (None, "", "")),
        ((("tracestate", "a=1"),), (None, "", "")),
        ((("traceparent", TRACEPARENT), ("tracestate", "x" * 513)), (None, TRACEPARENT, "")),
        (None, (None, "", "")),
    ],
)
def test_what_is_malformed_counts_as_not_sent(
    sent: tuple[tuple[str, str], ...] | None, kept: tuple[str | None, str, str]
) -> None:
    hop = hop_of(sent)
    assert (hop.traceparent, hop.tracestate) == kept[1:]
    assert hop.request_id == kept[0] if kept[0] is not None else len(hop.request_id) == 32


def test_a_hop_ends_with_its_block() -> None:
    with within(Hop("outer")):
        with within(Hop("inner")):
            assert current_hop().request_id == "inner"
        assert current_hop().request_id == "outer"
    assert current_hop() != current_hop()


# OpenTelemetry


@pytest.fixture
def untraced() -> Iterator[None]:
    yield
    trace_with(Untraced())


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recorded_spans() as recorder:
        yield recorder


async def test_each_hop_is_a_span_below_the_one_before(
    relays: tuple[Relay, Relay, grpc.aio.Channel], recorder: Recorder, logged: io.StringIO
) -> None:
    _, second, channel = relays
    await ask(channel)
    spans = await recorder.settled()
    assert [span.kind for span in spans] == ["CLIENT", "SERVER", "CLIENT", "SERVER"]
    assert {span.name for span in spans} == {f"{SERVICE}/GenerateText"}
    (trace_id,) = {span.trace_id for span in spans}
    assert [span.parent_id for span in spans] == ["", *(span.span_id for span in spans[:-1])]
    assert {span.code for span in spans} == {"OK"}
    assert trace_id in str(second.heard[0]["traceparent"])
    assert {line["trace_id"] for line in lines(logged) if line["event"] == "at work"} == {trace_id}


async def test_a_call_that_fails_is_a_span_with_its_code(
    relays: tuple[Relay, Relay, grpc.aio.Channel], recorder: Recorder
) -> None:
    _, _, channel = relays
    with within(Hop("mine-1", TRACEPARENT)), pytest.raises(PreconditionFailed):
        await ask(channel, prompt="fail")
    spans = await recorder.settled()
    assert len(spans) == 2
    for span in spans:
        assert (span.code, span.request_id) == ("FAILED_PRECONDITION", "mine-1")
        assert span.failed and span.trace_id == TRACE


def test_a_call_that_is_left_with_its_loop_is_a_span_too(
    tmp_path: object, recorder: Recorder
) -> None:
    async def leave() -> None:
        channel = open_channel(f"unix:{tmp_path}/nobody")
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        stub.GenerateText(generator_pb2.GenerateTextRequest(prompt="x"), wait_for_ready=True)

    asyncio.run(leave())
    (span,) = recorder.spans
    assert (span.kind, span.code) == ("CLIENT", "CANCELLED")


def test_nothing_is_traced_unless_the_environment_says_where_to(
    untraced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in tracing_module.ENDPOINT_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    configure_tracing("seal-test")
    assert isinstance(tracing_module.tracing(), Untraced)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    configure_tracing("seal-test")
    assert isinstance(tracing_module.tracing(), Untraced)


def test_traces_that_are_wanted_need_the_extra(
    untraced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.delitem(sys.modules, "seal.rpc.spans", raising=False)
    for name in ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "opentelemetry"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PreconditionFailed, match="OTEL_EXPORTER_OTLP_ENDPOINT") as refused:
        configure_tracing("seal-test")
    assert "seal-kubernetes[otel]" in refused.value.remedy


def test_the_environment_turns_spans_on(untraced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not installed")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    configure_tracing("seal-test")
    assert not isinstance(tracing_module.tracing(), Untraced)


def test_a_collector_that_is_to_hear_http_is_told_of(
    untraced: None, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not installed")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    configure_tracing("seal-test")
    (line,) = lines(logged)
    assert line["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert "4317" in str(line["remedy"])


async def test_a_stream_that_the_event_loop_closes_after_its_task_ends_without_an_error() -> None:
    told: list[str] = []

    async def stream() -> AsyncIterator[str]:
        with within(Hop("of-the-call")):
            try:
                yield current_hop().request_id
            finally:
                told.append("closed")

    messages = stream()

    async def first() -> str:
        return await anext(messages)

    assert await asyncio.create_task(first()) == "of-the-call"
    await messages.aclose()  # type: ignore[attr-defined]  # in this task's context, as the loop does
    assert told == ["closed"]
