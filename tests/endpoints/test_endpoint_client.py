"""A model that others serve: what is sent again, what is given up, and what is never shown."""

from __future__ import annotations

import asyncio
import io
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

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
from pydantic import SecretStr

import seal.endpoints.client
from seal.endpoint_keys import read_key
from seal.endpoints import Endpoint, Sampling, Shared
from seal.endpoints.faults import retry_after
from seal.endpoints.replies import same_model
from seal.errors import (
    Exhausted,
    InvalidInput,
    PreconditionFailed,
    SealError,
    Transient,
    UnfitItem,
)
from seal.outcomes import Outcome
from seal.prompts import Message
from seal.settings import EndpointLimits, EndpointSettings
from seal.telemetry import configure_logging

KEY = "sk-a-very-secret-key"
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=7, seed=2**62 + 5, stop=("a", "b"))
TURNS = (Message("system", "Be brief."), Message("user", "the secret passage"))
LIMITS = EndpointLimits(patience_seconds=5.0, timeout_seconds=5.0)
IMPATIENT = EndpointLimits(patience_seconds=0.05, timeout_seconds=0.2)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.endpoints.client, "FIRST_PAUSE_SECONDS", 0.01)


@asynccontextmanager
async def client(
    answer: Callable[[Call], Reply] | list[Reply] | Reply,
    *,
    limits: EndpointLimits = LIMITS,
    key: str | None = KEY,
) -> AsyncIterator[tuple[Endpoint, OpenAIServer]]:
    async with openai_server(answer) as server:
        settings = EndpointSettings(base_url=server.base_url, model=MODEL)
        secret = SecretStr(key) if key else None
        async with Endpoint(settings, key=secret, limits=limits) as endpoint:
            yield endpoint, server


async def failure(endpoint: Endpoint) -> SealError:
    with pytest.raises(SealError) as raised:
        await endpoint.chat(TURNS, SAMPLING)
    assert raised.value.remedy
    return raised.value


async def test_a_chat_is_asked_as_it_stands_and_its_text_comes_back() -> None:
    async with client(says("Hello", tokens=5)) as (endpoint, server):
        completion = await endpoint.chat(TURNS, SAMPLING)
    assert (completion.text, completion.tokens, completion.truncated) == ("Hello", 5, False)
    assert completion.logprob is None
    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the secret passage"},
    ]
    assert {name: call.body[name] for name in ("model", "temperature", "top_p", "max_tokens")} == {
        "model": MODEL,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
    }
    assert call.body["stop"] == ["a", "b"]
    assert isinstance(call.body["seed"], int) and 0 <= call.body["seed"] < 2**31


async def test_a_greedy_request_says_no_top_p_which_some_endpoints_refuse_beside_it() -> None:
    async with client(says("Hello")) as (endpoint, server):
        await endpoint.chat(TURNS, replace(SAMPLING, temperature=0.0))
    assert server.calls[0].body["temperature"] == 0 and "top_p" not in server.calls[0].body


async def test_a_text_is_continued_and_has_the_log_probability_that_the_endpoint_gives() -> None:
    logprobs = {"token_logprobs": [None, -1.0, -2.0]}
    async with client(says("on", finish="length", logprobs=logprobs)) as (endpoint, server):
        completion = await endpoint.complete("go", SAMPLING)
    assert (completion.text, completion.truncated, completion.logprob) == ("on", True, -1.5)
    assert (server.calls[0].path, server.calls[0].body["prompt"]) == ("/v1/completions", "go")


@pytest.mark.parametrize("passing", [fails(500), fails(503), fails(429), CUTS, MALFORMED])
async def test_what_fails_for_the_moment_is_sent_again(passing: Reply) -> None:
    async with client([passing, passing, says("Hello")]) as (endpoint, server):
        assert (await endpoint.chat(TURNS, SAMPLING)).text == "Hello"
    assert len(server.calls) == 3


async def test_when_the_endpoint_says_when_to_come_back_everybody_waits_until_then() -> None:
    async with client([fails(429, retry_after="0.4"), says("Hello")]) as (endpoint, server):
        started = time.monotonic()
        first = asyncio.create_task(endpoint.chat(TURNS, SAMPLING))
        await server.until(lambda server: bool(server.calls))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, *(endpoint.chat(TURNS, SAMPLING) for _ in range(3)))
        waited = time.monotonic() - started
    assert waited >= 0.4 and len(server.calls) == 5


async def test_who_is_told_to_come_back_after_all_patience_is_told_so_at_once() -> None:
    async with client(fails(429, retry_after="60")) as (endpoint, server):
        error = await failure(endpoint)
        again = await failure(endpoint)
    assert isinstance(error, Exhausted) and error.retry_after_seconds == 60
    assert isinstance(again, Transient) and len(server.calls) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (fails(500), Transient),
        (fails(429), Exhausted),
        (HANGS, Transient),
        (CUTS, Transient),
        (MALFORMED, Transient),
        (says(None), Transient),
        (Reply(body={"choices": []}), Transient),
        (Reply(body=b"\xff\xfe"), Transient),
    ],
)
async def test_what_never_ends_is_given_up_after_all_patience(
    answer: Reply, kind: type[SealError]
) -> None:
    async with client(answer, limits=IMPATIENT) as (endpoint, _):
        assert type(await failure(endpoint)) is kind


async def test_an_outage_costs_one_patience_and_not_one_for_each_request() -> None:
    async with client(fails(500), limits=IMPATIENT) as (endpoint, server):
        await failure(endpoint)
        before = len(server.calls)
        for _ in range(5):
            assert isinstance(await failure(endpoint), Transient)
        assert len(server.calls) == before


async def test_a_request_that_always_fails_is_no_outage_while_others_are_answered() -> None:
    def answer(call: Call) -> Reply:
        return fails(500) if call.asked == "hopeless" else says("Hello")

    async with client(answer, limits=IMPATIENT) as (endpoint, _):
        hopeless = asyncio.create_task(endpoint.chat((Message("user", "hopeless"),), SAMPLING))
        while not hopeless.done():
            assert (await endpoint.chat(TURNS, SAMPLING)).text == "Hello"
        assert isinstance(hopeless.exception(), Transient)
        assert (await endpoint.chat(TURNS, SAMPLING)).text == "Hello"


async def test_an_outage_is_one_for_all_though_some_were_answered_before_it() -> None:
    async with client([says("Hello"), fails(500)], limits=IMPATIENT) as (endpoint, server):
        await endpoint.chat(TURNS, SAMPLING)
        await failure(endpoint)
        before = len(server.calls)
        await failure(endpoint)
        assert len(server.calls) == before


async def test_the_time_in_which_a_request_waits_for_its_turn_takes_no_patience() -> None:
    slow = Reply(body=says("first").body, seconds=0.5)
    limits = EndpointLimits(concurrency=1, patience_seconds=0.3)
    async with client([slow, fails(503), says("second")], limits=limits) as (endpoint, _):
        texts = await asyncio.gather(*(endpoint.chat(TURNS, SAMPLING) for _ in range(2)))
    assert {one.text for one in texts} == {"first", "second"}


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (fails(401), "api_key_file"),
        (fails(403), "api_key_file"),
        (fails(404), "base_url"),
        (fails(429, code="insufficient_quota"), ""),
        (fails(400, code="unsupported_parameter", param="max_tokens"), "model"),
        (fails(400, code="unsupported_value", param="temperature"), "model"),
        (says("Hello", model="great-model-mini"), "model"),
    ],
)
async def test_what_no_patience_mends_is_refused_at_once(answer: Reply, field: str) -> None:
    async with client(answer) as (endpoint, server):
        error = await failure(endpoint)
    assert (type(error), error.field, len(server.calls)) == (PreconditionFailed, field, 1)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (fails(400), Outcome.REFUSED),
        (fails(400, code="context_length_exceeded"), Outcome.TOO_LONG),
        (fails(400, code=400, param="input_tokens"), Outcome.TOO_LONG),  # vLLM's
        (fails(400, code="unsupported_value", param="messages[0].content"), Outcome.REFUSED),
        (fails(413), Outcome.TOO_LONG),
    ],
)
async def test_a_request_that_is_refused_is_its_own_fault(answer: Reply, outcome: Outcome) -> None:
    async with client(answer) as (endpoint, server):
        error = await failure(endpoint)
    assert isinstance(error, UnfitItem) and error.outcome is outcome and len(server.calls) == 1


async def test_a_text_that_a_filter_took_away_is_empty() -> None:
    async with client(says(None, finish="content_filter")) as (endpoint, _):
        assert (await endpoint.chat(TURNS, SAMPLING)).text == ""


async def test_a_text_whose_bound_was_spent_on_thoughts_is_empty_and_cut_off() -> None:
    async with client(says(None, finish="length")) as (endpoint, server):
        completion = await endpoint.chat(TURNS, SAMPLING)
    assert (completion.text, completion.truncated, len(server.calls)) == ("", True, 1)


async def test_no_more_requests_are_outstanding_than_allowed() -> None:
    slow = Reply(body=says("Hello").body, seconds=0.02)
    async with client(slow, limits=EndpointLimits(concurrency=3)) as (endpoint, server):
        await asyncio.gather(*(endpoint.chat(TURNS, SAMPLING) for _ in range(12)))
    assert (len(server.calls), server.most_running) == (12, 3)


async def test_a_budget_counts_every_request_and_ends_them() -> None:
    limits = EndpointLimits(max_calls=3, patience_seconds=5)
    async with client([fails(500), says("Hello")], limits=limits) as (endpoint, server):
        await endpoint.chat(TURNS, SAMPLING)
        await endpoint.chat(TURNS, SAMPLING)
        error = await failure(endpoint)
    assert (type(error), error.field, len(server.calls)) == (PreconditionFailed, "max_calls", 3)


async def test_a_request_that_nobody_waits_for_ends() -> None:
    async with client(HANGS) as (endpoint, server):
        task = asyncio.create_task(endpoint.chat(TURNS, SAMPLING))
        await server.until(lambda server: bool(server.calls))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.until(lambda server: server.left == 1)


@pytest.mark.parametrize(
    "answer",
    [
        fails(401, message=f"wrong key {KEY} for the secret passage"),
        fails(500, message=f"{KEY} the secret passage"),
        fails(400, message=f"{KEY} the secret passage", code=KEY),
        Reply(body={"choices": f"{KEY} the secret passage"}),
        says(KEY, model=f"the secret passage {KEY}"),
        CUTS,
        HANGS,
    ],
)
async def test_neither_key_nor_text_is_in_an_error_a_traceback_or_a_log(answer: Reply) -> None:
    stream = io.StringIO()
    configure_logging("debug", json=True, stream=stream)
    try:
        async with client(answer, limits=IMPATIENT) as (endpoint, server):
            error = await failure(endpoint)
            shown = [str(error), repr(error), repr(vars(error)), repr(endpoint), stream.getvalue()]
        logging.getLogger("seal.test").error("failed", exc_info=error)
    finally:
        configure_logging()
    shown += [*traceback.format_exception(error), stream.getvalue()]
    assert "failed" in stream.getvalue() and server.calls
    for text in shown:
        assert KEY not in text and "secret passage" not in text


async def test_the_key_of_another_endpoint_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with client(says("Hello"), key=None) as (endpoint, server):
        await endpoint.chat(TURNS, SAMPLING)
    assert KEY not in str(server.calls[0].headers)


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("gpt-4.1", True),
        ("GPT-4.1", True),
        ("gpt-4.1-2025-04-14", True),
        ("openai/gpt-4.1", True),
        ("gpt-4.1:latest", True),
        ("gpt-4.1-mini", False),
        ("gpt-4.1-mini-2025-04-14", False),
        ("gpt-4", False),
        ("gpt-4.10", False),
        ("other", False),
    ],
)
def test_a_model_is_the_one_that_was_asked_for_up_to_its_version(said: str, same: bool) -> None:
    assert same_model("gpt-4.1", said) is same


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ],
)
def test_when_to_come_back_is_read_as_seconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, now=10.0) == seconds


def test_a_key_is_read_from_its_file_or_else_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    environment = {"SEAL_OPENAI_API_KEY": "other"}
    of_file = read_key(str(file), field="f", environment=environment)
    of_variable = read_key("", field="f", environment=environment)
    assert of_file is not None and of_file.get_secret_value() == KEY and KEY not in repr(of_file)
    assert of_variable is not None and of_variable.get_secret_value() == "other"
    assert read_key("", field="f", environment={}) is None


@pytest.mark.parametrize("content", [None, "", "  \n", "two words", "a\nb", "schlüssel"])
def test_a_file_without_a_key_is_refused_by_its_field_and_not_shown(
    content: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidInput) as refused:
        read_key(str(file), field="api_key_file")
    assert refused.value.field == "api_key_file" and refused.value.remedy
    assert not (content or "").strip() or content not in str(refused.value)


async def test_the_same_question_is_asked_once_and_a_failed_one_again() -> None:
    asked: list[str] = []
    shared: Shared[str, int] = Shared(capacity=2)

    async def ask(name: str) -> int:
        asked.append(name)
        await asyncio.sleep(0.01)
        if len(asked) == 1:
            raise Transient("away")
        return len(asked)

    with pytest.raises(Transient):
        await shared.get("a", lambda: ask("a"))
    assert await asyncio.gather(*(shared.get("a", lambda: ask("a")) for _ in range(5))) == [2] * 5
    for name in ("b", "c", "b"):
        await shared.get(name, lambda name=name: ask(name))  # type: ignore[misc]
    assert asked == ["a", "a", "b", "c"] and len(shared) == 2
    await shared.get("a", lambda: ask("a"))
    assert asked[-1] == "a"


async def test_a_question_ends_when_the_last_one_who_waits_leaves() -> None:
    shared: Shared[str, int] = Shared(capacity=2)
    ended = asyncio.Event()

    async def ask() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return 1

    first, second = (asyncio.create_task(shared.get("a", ask)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not ended.is_set()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await asyncio.wait_for(ended.wait(), 5)
