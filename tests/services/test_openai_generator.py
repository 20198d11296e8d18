"""Edits by a model that others serve: what it is asked, what is paid for again, what is refused."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from openai_server import (
    CUTS,
    HANGS,
    MALFORMED,
    MODEL,
    Call,
    OpenAIServer,
    Reply,
    fails,
    openai_server,
    says,
)
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    generation_request,
    policy,
    read_all,
    refusal,
    serving,
)

import seal.endpoints.client
from generator_svc.by_endpoint import open_writer
from generator_svc.openai_backend import OpenAIWriter
from generator_svc.service import register
from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.domains.base import ABSTAIN
from seal.domains.knowledge import KnowledgeDomain
from seal.engine import GenerationRequest
from seal.errors import InvalidInput, PreconditionFailed, Retryable, Transient
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_FROM_WIRE, part_record
from seal.settings import EditGenerator, EndpointLimits, EngineSettings
from seal.v1 import generator_pb2, generator_pb2_grpc

IMPATIENT = EndpointLimits(patience_seconds=0.05, timeout_seconds=0.2)
PATIENT = EndpointLimits(patience_seconds=10, timeout_seconds=5)
REQUEST = GenerationRequest(
    run="run",
    policy=None,
    prompts=("Go on:",),
    seeds=((1,),),
    temperature=1.0,
    top_p=1.0,
    max_tokens=9,
    stop=("1", "2", "3", "4", "Question:"),
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.endpoints.client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(seal.endpoints.client, "AWAY_SECONDS", 0.2)


@dataclass
class Press:
    """A generator whose texts an endpoint writes."""

    stub: generator_pb2_grpc.GeneratorServiceAsyncStub
    server: OpenAIServer
    writer: OpenAIWriter

    def generate(self, request: generator_pb2.GenerateEditsRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.GenerateEdits(request, timeout=DEADLINE_SECONDS)

    async def edits(
        self, request: generator_pb2.GenerateEditsRequest
    ) -> list[generator_pb2.ContextEdits]:
        messages = await read_all(self.generate(request))
        return [message.context_edits for message in messages if message.HasField("context_edits")]


@asynccontextmanager
async def press(
    directory: Path,
    answer: Callable[[Call], Reply] | list[Reply] | Reply,
    *,
    limits: EndpointLimits = PATIENT,
    **generator: object,
) -> AsyncIterator[Press]:
    async with openai_server(answer) as server:
        settings = EditGenerator.model_validate(
            {"baseUrl": server.base_url, "model": MODEL} | generator
        )
        writer = open_writer(settings, settings=EngineSettings(generation_rows=4), limits=limits)
        store = ArtifactStore(f"file://{directory}/artifacts")
        try:
            adapters = AdapterCache(store, base=writer.base)
            async with serving(
                functools.partial(register, engine=writer, adapters=adapters, pace=FAST)
            ) as channel:
                yield Press(generator_pb2_grpc.GeneratorServiceStub(channel), server, writer)
        finally:
            await asyncio.to_thread(writer.close)


def request_of(
    texts: list[str], *, seeds: tuple[int, ...] = (11, 12), format: str = "chat", **changes: object
) -> generator_pb2.GenerateEditsRequest:
    contexts = [
        generator_pb2.EditContext(context_id=f"c{place}", title=f"T{place}", text=text, seeds=seeds)
        for place, text in enumerate(texts)
    ]
    values: dict[str, object] = {
        "policy": policy(base_model=MODEL),
        "contexts": contexts,
        "prompt": generator_pb2.EditPrompt(family="implications", format=format),
    }
    return generation_request(**(values | changes))


async def test_each_candidate_is_one_request_with_the_seed_and_the_sampling_of_the_call(
    tmp_path: Path,
) -> None:
    def answer(call: Call) -> Reply:
        return says(f"Veldra flows, seed {call.body['seed']}", tokens=6)

    async with press(tmp_path, answer) as place:
        (edits,) = await place.edits(request_of(["Veldra is a river."]))
        calls = place.server.calls
    assert [edit.seed for edit in edits.edits] == [11, 12]
    assert [edit.parts[0].text for edit in edits.edits] == [
        "Veldra flows, seed 11",
        "Veldra flows, seed 12",
    ]
    assert [edit.parts[0].tokens for edit in edits.edits] == [6, 6]
    assert edits.engine_seconds == 0.0
    for call in calls:
        assert call.path == "/v1/chat/completions" and "Veldra is a river." in call.asked
        assert (call.body["temperature"], call.body["max_tokens"]) == (0.7, 32)


async def test_an_edit_has_a_log_probability_only_if_the_endpoint_gives_one(
    tmp_path: Path,
) -> None:
    given = {"content": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2.0}]}
    async with press(tmp_path, [says("one"), says("two", logprobs=given)]) as place:
        found = [
            part_record((await place.edits(request_of([text], seeds=(1,))))[0].edits[0].parts[0])
            for text in ("First.", "Second.")
        ]
    assert [part.logprob for part in found] == [None, -1.5]


@pytest.mark.parametrize("repeat", [str, str.lower])
async def test_a_base_prompt_is_continued_and_what_the_model_repeats_of_it_is_left_out(
    repeat: Callable[[str], str], tmp_path: Path
) -> None:
    def answer(call: Call) -> Reply:
        assert isinstance(call.body["messages"], list)
        assert call.body["messages"][0]["role"] == "system"
        return says(repeat(call.asked.rpartition("\n")[2]) + " and so on")

    request = request_of(["Veldra is a river."], format="base", seeds=(1,))
    by_sentence = generator_pb2.EditPrompt(family="self-qa-by-sentence", format="base")
    async with press(tmp_path, answer) as place:
        request.prompt.CopyFrom(by_sentence)
        (edits,) = await place.edits(request)
    assert edits.parts and all(part.start for part in edits.parts)
    assert {part.text for part in edits.edits[0].parts} == {" and so on"}


@pytest.mark.parametrize("format", ["base", "chat"])
@pytest.mark.parametrize(
    ("reply", "follows"),
    [
        ("cast the bell? Odo", " cast the bell? Odo"),
        (" cast the bell? Odo", " cast the bell? Odo"),
        ("'s bell is it? Odo", "'s bell is it? Odo"),
        ("Zzz was it cast? 1822", ABSTAIN),
    ],
)
async def test_a_part_goes_on_behind_its_start_or_abstains_where_the_model_begins_anew(
    reply: str, follows: str, format: str, tmp_path: Path
) -> None:
    request = request_of(["The bell was cast in 1822 by Odo Marrin."], seeds=(1,))
    by_sentence = generator_pb2.EditPrompt(family="self-qa-by-sentence", format=format)
    async with press(tmp_path, says(reply)) as place:
        request.prompt.CopyFrom(by_sentence)
        (edits,) = await place.edits(request)
    assert {part.text for part in edits.edits[0].parts} == {follows}


@pytest.mark.parametrize(
    ("prompt", "reply", "follows"),
    [
        ("The capital of France is", "Paris.", " Paris."),
        ("It was cast in", "1822.", " 1822."),
        ("Question:", "Who", "Who"),
        ("上海", "是", "是"),  # a script without blanks between words
    ],
)
async def test_a_text_goes_on_as_a_word_of_its_own(
    prompt: str, reply: str, follows: str, tmp_path: Path
) -> None:
    request = replace(REQUEST, prompts=(prompt,), stop=())
    async with press(tmp_path, says(reply)) as place:
        result = await asyncio.wrap_future(place.writer.generate(request).future)
    assert result.samples[0][0].text == follows


async def test_a_continuation_endpoint_gets_the_text_itself_and_no_chat(tmp_path: Path) -> None:
    async with press(tmp_path, says(" flows."), api="completions") as place:
        (edits,) = await place.edits(request_of(["Veldra is a river."], format="base", seeds=(1,)))
        error = await refusal(place.generate(request_of(["Veldra is a river."], format="chat")))
        (call,) = place.server.calls
    assert edits.edits[0].parts[0].text == " flows."
    assert (call.path, call.body["prompt"]) == ("/v1/completions", edits.parts[0].prompt)
    assert (type(error), error.field) == (InvalidInput, "prompt.format")


async def test_a_policy_and_another_model_are_refused_by_their_fields(tmp_path: Path) -> None:
    async with press(tmp_path, says("x")) as place:
        other = await refusal(
            place.generate(request_of(["Veldra."], policy=policy(base_model="another")))
        )
        adapted = replace(REQUEST, policy=object())  # type: ignore[arg-type]
        with pytest.raises(InvalidInput) as refused:
            place.writer.generate(adapted)
    assert (type(other), other.field) == (InvalidInput, "policy.base_model")
    assert refused.value.field == "policy.adapter" and refused.value.remedy
    assert place.server.calls == []


@pytest.mark.parametrize("passing", [fails(429, retry_after="0.1"), fails(500), CUTS, MALFORMED])
async def test_what_fails_for_the_moment_is_written_after_all(
    passing: Reply, tmp_path: Path
) -> None:
    async with press(tmp_path, [passing, says("Veldra flows.")]) as place:
        (edits,) = await place.edits(request_of(["Veldra."]))
    assert [edit.parts[0].text for edit in edits.edits] == ["Veldra flows."] * 2


@pytest.mark.parametrize("answer", [fails(503), fails(429), HANGS, CUTS, MALFORMED])
async def test_an_outage_is_the_callers_to_wait_for(answer: Reply, tmp_path: Path) -> None:
    async with press(tmp_path, answer, limits=IMPATIENT) as place:
        error = await refusal(place.generate(request_of(["Veldra."])))
    assert isinstance(error, Retryable)


@pytest.mark.parametrize(
    "answer", [fails(401), fails(404), says("Veldra flows.", model="another-model")]
)
async def test_what_no_wait_mends_is_refused_and_no_edit_is_taken_from_another_model(
    answer: Reply, tmp_path: Path
) -> None:
    async with press(tmp_path, answer) as place:
        error = await refusal(place.generate(request_of(["Veldra."])))
    assert isinstance(error, PreconditionFailed) and error.remedy


async def test_a_passage_that_the_endpoint_refuses_has_an_outcome_and_the_others_their_edits(
    tmp_path: Path,
) -> None:
    def answer(call: Call) -> Reply:
        if "Long." in call.asked:
            return fails(400, code="context_length_exceeded")
        return fails(400) if "Bad." in call.asked else says("Veldra flows.")

    async with press(tmp_path, answer) as place:
        found = await place.edits(request_of(["Long.", "Veldra.", "Bad."], seeds=(1,)))
    assert [OUTCOME_FROM_WIRE[edits.outcome] for edits in found] == [
        Outcome.TOO_LONG,
        Outcome.OK,
        Outcome.REFUSED,
    ]
    assert [len(edits.edits) for edits in found] == [0, 1, 0]


async def test_a_call_that_is_made_again_pays_only_for_what_it_has_not_got(tmp_path: Path) -> None:
    failing = True

    def answer(call: Call) -> Reply:
        return fails(500) if failing and "Second." in call.asked else says("Veldra flows.")

    request = request_of(["First.", "Second.", "Third."], seeds=(1,))
    async with press(
        tmp_path, answer, limits=EndpointLimits(patience_seconds=0.3, concurrency=3)
    ) as place:
        assert isinstance(await refusal(place.generate(request)), Transient)
        failing, before = False, len(place.server.calls)
        async with asyncio.timeout(60):
            while True:  # the endpoint counts as away for a while
                try:
                    found = await place.edits(request)
                    break
                except Retryable:
                    await asyncio.sleep(0.2)
        again = place.server.calls[before:]
    assert len(found) == 3
    assert ["Second." in call.asked for call in again] == [True]


async def test_texts_end_at_every_stop_text_though_an_endpoint_knows_few(tmp_path: Path) -> None:
    told: list[str] = []
    async with press(tmp_path, says("a fact\n\nQuestion: more")) as place:
        result = await asyncio.wrap_future(
            place.writer.generate(REQUEST, on_text=told.append).future
        )
        assert place.server.calls[0].body["stop"] == ["1", "2", "3", "4"]
    assert result.samples[0][0].text == told[0] == "a fact\n\n"


async def test_a_text_that_a_stop_text_ends_is_not_cut_off_though_its_endpoint_went_on(
    tmp_path: Path,
) -> None:
    went_on = [says("a fact\nQuestion: more", finish="length"), says("a fa", finish="length")]
    async with press(tmp_path, went_on) as place:
        cut_off = []
        for seed in (1, 2):
            request = replace(REQUEST, seeds=((seed,),))
            result = await asyncio.wrap_future(place.writer.generate(request).future)
            cut_off.append(result.samples[0][0].truncated)
    assert cut_off == [False, True]


async def test_a_caller_that_leaves_stops_what_is_being_written(tmp_path: Path) -> None:
    async with press(tmp_path, HANGS) as place:
        call = place.generate(request_of(["Veldra."]))
        reading = asyncio.create_task(read_all(call))
        await place.server.until(lambda server: len(server.calls) == 2)
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await place.server.until(lambda server: server.left == 2)


async def test_an_edit_that_has_a_schema_is_asked_for_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = '{"type": "object"}'
    monkeypatch.setattr(KnowledgeDomain, "edit_schema", lambda self, *asked: schema)
    async with press(tmp_path, lambda call: says("{}")) as found:
        await found.edits(request_of(["Veldra is long."], seeds=(1,)))
        (call,) = found.server.calls
    assert call.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}},
    }
