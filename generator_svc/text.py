"""GenerateText: one text, told in pieces while it is written.

A piece is what the engine is certain of: whole characters, nothing of a stop string. The pieces
together are the text of the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from generator_svc.plan import SampledAs, parse_sampling
from seal.engine import GenerationRequest, GenerationResult, concatenate
from seal.errors import InvalidInput, UnfitItem
from seal.limits import (
    MAX_COUNTED_CHARACTERS,
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    MAX_TEXT_TOKENS,
    MAX_TURNS,
)
from seal.outcomes import Outcome
from seal.prompts import Prompt
from seal.rpc import validation
from seal.rpc.convert import OUTCOME_TO_WIRE, adapter_reference, base_reference, chat_messages
from seal.rpc.engine_calls import Newest, Pace, engine_call, sample, shows_life
from seal.v1 import common_pb2, generator_pb2

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.backends import Writer
    from seal.bases import BaseReference
    from seal.engine import Adapter
    from seal.records import AdapterReference
    from seal.rpc.line import Line, TimeLeft

log = structlog.get_logger(__name__)

PIECE_SECONDS = 0.05
"""Time between two pieces: a reader sees words come, not lines."""


@dataclass(frozen=True)
class TextPlan:
    """One checked request."""

    run: str
    base: BaseReference | None
    """None: whatever model is loaded."""
    policy: AdapterReference | None
    adapter: AdapterReference | None
    prompt: Prompt
    sampled_as: SampledAs
    seed: int


def parse_text(request: generator_pb2.GenerateTextRequest) -> TextPlan:
    """Check a request. Raises InvalidInput naming the field."""
    validation.request_id(request.request_id)
    policy = request.policy
    return TextPlan(
        run=validation.run_name(request.run),
        base=base_reference(policy) if policy.base_model or policy.base_sha256 else None,
        policy=adapter_reference(policy.adapter, field="policy.adapter")
        if policy.HasField("adapter")
        else None,
        adapter=adapter_reference(request.adapter, field="adapter")
        if request.HasField("adapter")
        else None,
        prompt=_prompt(request),
        sampled_as=parse_sampling(request.sampling, max_tokens=MAX_TEXT_TOKENS),
        seed=validation.seed(request.seed, field="seed"),
    )


def _prompt(request: generator_pb2.GenerateTextRequest) -> Prompt:
    if not request.prompt and not request.messages:
        raise validation.refuse("prompt", "is empty", "give a prompt, or messages of a chat")
    if len(request.messages) > MAX_TURNS:
        raise validation.refuse(
            "messages",
            f"holds {len(request.messages)}, the limit is {MAX_TURNS}",
            "leave out the oldest turns",
        )
    characters = len(request.prompt)
    for index, message in enumerate(request.messages):
        characters += len(message.content)
        _bounded(f"messages[{index}].content", characters)
    _bounded("prompt", characters)
    if len(request.stop) > MAX_STOPS:
        raise validation.refuse(
            "stop", f"holds {len(request.stop)}, the limit is {MAX_STOPS}", "give fewer"
        )
    for index, stop in enumerate(request.stop):
        field = f"stop[{index}]"
        if not stop:
            raise validation.refuse(field, "is empty", "leave it out, or give a text")
        validation.optional_text(stop, field=field, max_characters=MAX_STOP_CHARACTERS)
    return Prompt(
        text=request.prompt,
        messages=chat_messages(request.messages),
        stop=tuple(dict.fromkeys(request.stop)),
    )


def _bounded(field: str, characters: int) -> None:
    """Refuse a prompt that has become too long with this field."""
    if characters > MAX_COUNTED_CHARACTERS:
        raise validation.refuse(
            field,
            f"the prompt has {characters} characters or more, the limit is "
            f"{MAX_COUNTED_CHARACTERS}",
            "shorten it",
        )


@dataclass(frozen=True)
class _Told:
    """News of the text."""

    state: common_pb2.TaskState.ValueType
    tokens: int = 0
    text: str = ""

    @property
    def progress(self) -> generator_pb2.GenerateTextResponse:
        progress = generator_pb2.GenerateProgress(
            state=self.state, edits_total=1, tokens=self.tokens
        )
        return generator_pb2.GenerateTextResponse(progress=progress)


class TextWriter:
    """Serves GenerateText on an engine that others use too."""

    def __init__(self, *, engine: Writer, adapters: AdapterCache, pace: Pace, line: Line) -> None:
        self._engine, self._adapters, self._line = engine, adapters, line
        self._pace = replace(pace, interval_seconds=min(pace.interval_seconds, PIECE_SECONDS))

    async def write(
        self, request: generator_pb2.GenerateTextRequest, time_left: TimeLeft
    ) -> AsyncGenerator[generator_pb2.GenerateTextResponse, None]:
        """The pieces of a text and its end. Closing the generator stops the work."""
        plan = await asyncio.to_thread(parse_text, request)
        if plan.base is not None:
            self._adapters.check_base(plan.base)
        asked = _engine_request(plan, await self._adapter(plan))
        newest, sent = Newest(_Told(common_pb2.TASK_STATE_QUEUED)), ""

        def on_progress(_: int, tokens: int) -> None:
            newest.set(replace(newest.value, state=common_pb2.TASK_STATE_RUNNING, tokens=tokens))

        def on_text(text: str) -> None:
            newest.set(replace(newest.value, text=text))

        try:
            async with engine_call(
                lambda: self._engine.generate(asked, on_progress, on_text),
                line=self._line,
                time_left=time_left,
            ) as finished:
                async for told in sample(
                    newest, finished, pace=self._pace, alive=lambda: shows_life(self._engine)
                ):
                    if piece := told.text[len(sent) :]:
                        sent += piece
                        yield generator_pb2.GenerateTextResponse(delta=piece)
                    else:
                        yield told.progress
                result = _result(finished.result())
        except UnfitItem as error:
            log.warning("text unfit", outcome=error.outcome.value, reason=str(error))
            result = generator_pb2.GenerateTextResult(outcome=OUTCOME_TO_WIRE[error.outcome])
        except InvalidInput as error:
            raise _as_asked(error) from error
        if piece := result.text[len(sent) :]:
            yield generator_pb2.GenerateTextResponse(delta=piece)
        log.info("text generated", tokens=result.tokens, truncated=result.truncated)
        yield generator_pb2.GenerateTextResponse(result=result)

    async def _adapter(self, plan: TextPlan) -> Adapter | None:
        """All that sits on the base model, as one adapter."""
        policy, adapter = [
            None if reference is None else await self._adapters.get(reference, field=field)
            for reference, field in ((plan.policy, "policy.adapter"), (plan.adapter, "adapter"))
        ]
        if policy is None or adapter is None:
            return policy or adapter
        return await asyncio.to_thread(concatenate, policy, adapter)


def _engine_request(plan: TextPlan, adapter: Adapter | None) -> GenerationRequest:
    return GenerationRequest(
        run=plan.run,
        policy=adapter,
        prompts=(plan.prompt,),
        seeds=((plan.seed,),),
        temperature=plan.sampled_as.temperature,
        top_p=plan.sampled_as.top_p,
        max_tokens=plan.sampled_as.max_tokens,
        stop=plan.prompt.stop,
    )


def _result(result: GenerationResult) -> generator_pb2.GenerateTextResult:
    ((written,),) = result.samples
    return generator_pb2.GenerateTextResult(
        outcome=OUTCOME_TO_WIRE[Outcome.OK],
        text=written.text,
        tokens=written.tokens,
        truncated=written.truncated,
        engine_seconds=result.engine_seconds[0],
    )


def _as_asked(error: InvalidInput) -> InvalidInput:
    """The engine's refusal by the field as this call names it."""
    if error.field == "prompt.format":
        return InvalidInput(
            error.message,
            field="messages",
            remedy="send a raw prompt, or use a model with a chat template",
        )
    if error.field == "max_tokens":
        return InvalidInput(error.message, field="sampling.max_tokens", remedy=error.remedy)
    return error
