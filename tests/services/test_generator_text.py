"""GenerateText: what it refuses, what it tells while it writes, and that a left call is no work."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from eventually import until
from fake_engine import FakeEngine
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    each_is_refused_by_its_field,
    fake_cache,
    policy,
    publish,
    read_all,
    refusal,
    serving,
    text_request,
)

import generator_svc.service
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound, Transient, UnfitItem
from seal.limits import MAX_COUNTED_CHARACTERS, MAX_STOPS, MAX_TEXT_TOKENS, MAX_TURNS
from seal.outcomes import Outcome
from seal.prompts import Message, Prompt
from seal.rpc.convert import adapter_message
from seal.v1 import common_pb2, generator_pb2, generator_pb2_grpc

Call = grpc.aio.UnaryStreamCall


class Writer:
    """A running generator and what it stands on."""

    def __init__(self, channel: grpc.aio.Channel, engine: FakeEngine, store: ArtifactStore) -> None:
        self.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self.engine, self.store = engine, store

    def write(
        self,
        request: generator_pb2.GenerateTextRequest,
        timeout: float = DEADLINE_SECONDS,
    ) -> Call:  # type: ignore[type-arg]
        return self.stub.GenerateText(request, timeout=timeout)

    async def events(self, **changes: object) -> list[generator_pb2.GenerateTextResponse]:
        return await read_all(self.write(text_request(**changes)))


@asynccontextmanager
async def started(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Writer]:
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    registration = functools.partial(
        generator_svc.service.register,
        engine=engine,
        adapters=fake_cache(store, engine),
        pace=FAST,
    )
    async with serving(registration) as channel:
        yield Writer(channel, engine, store)


@pytest.fixture
async def writer(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Writer]:
    async with started(tmp_path, engine) as writer:
        yield writer


def turns(count: int, content: str = "hello") -> list[common_pb2.ChatMessage]:
    return [common_pb2.ChatMessage(role="user", content=content) for _ in range(count)]


def sampling(
    temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 16
) -> generator_pb2.Sampling:
    return generator_pb2.Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)


LONG = "x" * (MAX_COUNTED_CHARACTERS // 2 + 1)
NO_DIGEST = common_pb2.AdapterRef(path="a/b", sha256="abc")
BAD_REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("request_id", {"request_id": ""}),
    ("run", {"run": "No Run"}),
    ("policy.base_model", {"policy": common_pb2.PolicyRef(base_sha256="a" * 64)}),
    ("policy.base_model", {"policy": policy(base_model="llama-7b")}),
    ("policy.adapter.sha256", {"policy": common_pb2.PolicyRef(adapter=NO_DIGEST)}),
    ("adapter.sha256", {"adapter": NO_DIGEST}),
    ("adapter.path", {"adapter": common_pb2.AdapterRef(sha256="a" * 64)}),
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": LONG + LONG}),
    ("messages[0].content", {"prompt": LONG, "messages": turns(1, LONG[1:])}),
    ("messages", {"messages": turns(MAX_TURNS + 1)}),
    ("messages[1].content", {"messages": turns(3, LONG)}),
    ("messages[0].role", {"messages": [common_pb2.ChatMessage(role="god", content="hello")]}),
    ("sampling.temperature", {"sampling": sampling(temperature=-1.0)}),
    ("sampling.top_p", {"sampling": sampling(top_p=0.0)}),
    ("sampling.max_tokens", {"sampling": sampling(max_tokens=0)}),
    ("sampling.max_tokens", {"sampling": sampling(max_tokens=MAX_TEXT_TOKENS + 1)}),
    ("seed", {"seed": 2**63}),
    ("stop", {"stop": ["a"] * (MAX_STOPS + 1)}),
    ("stop[1]", {"stop": ["a", ""]}),
    ("stop[0]", {"stop": ["a" * 257]}),
]


async def test_every_bound_is_refused_by_its_field_with_a_remedy_before_the_engine_sees_it(
    writer: Writer,
) -> None:
    await each_is_refused_by_its_field(writer.write, text_request, BAD_REQUESTS)
    assert writer.engine.generated == []


async def test_the_pieces_come_while_it_is_written_and_are_the_text(writer: Writer) -> None:
    told, events = threading.Semaphore(0), []
    writer.engine.between_words = lambda: told.acquire(timeout=15)
    async for event in writer.write(text_request()):
        events.append(event)
        told.release()
    deltas = [event.delta for event in events if event.WhichOneof("event") == "delta"]
    result = events[-1].result
    assert len(deltas) == 5
    assert "".join(deltas) == result.text == "base edit 7 on 33"
    assert (result.outcome, result.tokens, result.truncated) == (common_pb2.OUTCOME_OK, 5, False)
    assert result.engine_seconds == 0.25
    assert [event.WhichOneof("event") for event in events].count("result") == 1


async def test_the_request_reaches_the_engine_as_it_was_asked(writer: Writer) -> None:
    chat = [*turns(1), common_pb2.ChatMessage(role="assistant", content="hi")]
    await writer.events(
        prompt="Sure", messages=chat, stop=["b", "a", "b"], sampling=sampling(0.5, 0.9, 12)
    )
    (asked,) = writer.engine.generated
    messages = (Message("user", "hello"), Message("assistant", "hi"))
    assert asked.prompts == (Prompt(text="Sure", messages=messages, stop=("b", "a")),)
    assert (asked.run, asked.seeds, asked.stop) == ("chat", ((7,),), ("b", "a"))
    assert (asked.temperature, asked.top_p, asked.max_tokens) == (0.5, 0.9, 12)


@pytest.mark.parametrize("place", ["policy", "adapter"])
async def test_an_adapter_writes_in_either_place(writer: Writer, place: str) -> None:
    reference = publish(writer.store)
    named = {"policy": policy(reference), "adapter": adapter_message(reference)}
    events = await writer.events(**{place: named[place]})
    assert events[-1].result.text.startswith("adapted ")


async def test_an_adapter_that_is_not_there_or_of_another_base_is_refused_by_its_field(
    writer: Writer,
) -> None:
    foreign = publish(writer.store, base_model="llama-7b")
    error = await refusal(writer.write(text_request(adapter=adapter_message(foreign))))
    assert isinstance(error, InvalidInput) and error.field == "adapter"
    missing = common_pb2.AdapterRef(path="run/adapters/" + "a" * 64, sha256="a" * 64)
    error = await refusal(writer.write(text_request(adapter=missing)))
    assert isinstance(error, NotFound) and error.remedy


@pytest.mark.parametrize("outcome", [Outcome.TOO_LONG, Outcome.REFUSED, Outcome.DIVERGED])
async def test_a_text_at_fault_is_a_result_with_its_outcome(
    writer: Writer, outcome: Outcome
) -> None:
    def unfit(_: object) -> None:
        raise UnfitItem("of no use", outcome=outcome)

    if outcome is Outcome.DIVERGED:
        writer.engine.fault = unfit
    else:
        writer.engine.check = unfit
    (result,) = [event.result for event in await writer.events() if event.HasField("result")]
    assert common_pb2.Outcome.Name(result.outcome) == f"OUTCOME_{outcome.name}"
    assert (result.text, result.tokens) == ("", 0)


@pytest.mark.parametrize(
    ("engines", "named"),
    [("prompt.format", "messages"), ("max_tokens", "sampling.max_tokens"), ("other", "other")],
)
async def test_what_the_engine_refuses_is_named_as_it_was_asked(
    writer: Writer, engines: str, named: str
) -> None:
    def refuses(_: object) -> None:
        raise InvalidInput("it will not do", field=engines, remedy="ask for something else")

    writer.engine.check = refuses
    error = await refusal(writer.write(text_request()))
    assert (type(error), error.field) == (InvalidInput, named)
    assert error.remedy


async def test_a_cancelled_call_stops_the_work(writer: Writer) -> None:
    writer.engine.gate.clear()
    call = writer.write(text_request())
    await anext(aiter(call))
    call.cancel()
    await until(lambda: writer.engine.cancelled_tasks == 1)
    assert writer.engine.generated == []


async def test_a_passed_deadline_stops_the_work(writer: Writer) -> None:
    writer.engine.gate.clear()
    error = await refusal(writer.write(text_request(), timeout=0.3))
    assert isinstance(error, Transient)
    await until(lambda: writer.engine.cancelled_tasks == 1)
    assert writer.engine.generated == []


async def test_a_call_that_waits_says_that_it_lives(writer: Writer) -> None:
    writer.engine.gate.clear()
    call = writer.write(text_request())
    stream = aiter(call)
    first, second = await anext(stream), await anext(stream)
    writer.engine.gate.set()
    assert first.progress.state == second.progress.state == common_pb2.TASK_STATE_QUEUED
    assert first.progress.edits_total == 1
    assert [event async for event in stream][-1].result.text


async def test_a_retry_gives_the_same_text(writer: Writer) -> None:
    first, again = await writer.events(), await writer.events()
    assert first[-1].result.text == again[-1].result.text
