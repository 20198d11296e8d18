"""Ask base model and adapted model the same, and follow what both write."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

import grpc

from controller_svc.cli.messages import program
from seal.domains import get_domain
from seal.domains.base import Query
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.prompts import Message, Prompt
from seal.records import AdapterReference
from seal.rpc.client import rpc_errors
from seal.rpc.convert import OUTCOME_FROM_WIRE, adapter_message, chat_message_list
from seal.settings import QuestionFormat
from seal.v1 import generator_pb2, generator_pb2_grpc

Speaker = Literal["base", "adapted"]
SPEAKERS: tuple[Speaker, ...] = get_args(Speaker)
"""Who answers, in the order in which they are shown."""
RUN = "chat"
"""Whom the service knows the calls by."""
DEADLINE_SECONDS = 600.0
"""An answer that takes longer is given up."""
ANSWER_TOKENS: Mapping[QuestionFormat, int] = MappingProxyType(
    {"few-shot": 64, "reading": 64, "plain": 64, "chat": 256}
)
"""Longest answer where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How both are asked."""

    format: QuestionFormat
    max_tokens: int
    temperature: float
    seed: int


@dataclass
class Answer:
    """What one of them has written so far."""

    text: str = ""
    outcome: Outcome | None = None
    """None while it is written."""
    tokens: int = 0
    truncated: bool = False
    engine_seconds: float = 0.0


@dataclass
class Chat:
    """A conversation with both; each remembers its own answers."""

    generator: generator_pb2_grpc.GeneratorServiceAsyncStub
    adapter: AdapterReference
    manner: Manner
    turns: dict[Speaker, list[Message]] = field(
        default_factory=lambda: {speaker: [] for speaker in SPEAKERS}
    )

    async def ask(
        self, message: str, on_change: Callable[[Mapping[Speaker, Answer]], None]
    ) -> Mapping[Speaker, Answer]:
        """The answers of both; `on_change` is told after every piece.

        Raises the SealError with which one of the calls ends.
        """
        answers = {speaker: Answer() for speaker in SPEAKERS}
        try:
            async with asyncio.TaskGroup() as asking:
                for speaker, answer in answers.items():
                    request = self._request(speaker, message)
                    asking.create_task(self._follow(request, answer, lambda: on_change(answers)))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for speaker, answer in answers.items():
            if answer.outcome is Outcome.OK:
                said = [Message("user", message), Message("assistant", answer.text)]
                self.turns[speaker] += said
        return answers

    async def _follow(
        self,
        request: generator_pb2.GenerateTextRequest,
        answer: Answer,
        on_change: Callable[[], None],
    ) -> None:
        with rpc_errors(), _asked_of_a_model():
            async for event in self.generator.GenerateText(request, timeout=DEADLINE_SECONDS):
                if event.HasField("delta"):
                    answer.text += event.delta
                elif event.HasField("result"):
                    result = event.result
                    answer.outcome = OUTCOME_FROM_WIRE[result.outcome]
                    answer.text, answer.tokens = result.text, result.tokens
                    answer.truncated = result.truncated
                    answer.engine_seconds = result.engine_seconds
                else:
                    continue
                on_change()

    def _request(self, speaker: Speaker, message: str) -> generator_pb2.GenerateTextRequest:
        prompt = prompt_of(message, self.manner.format, before=self.turns[speaker])
        return generator_pb2.GenerateTextRequest(
            request_id=f"chat-{secrets.token_hex(8)}",
            run=RUN,
            adapter=adapter_message(self.adapter) if speaker == "adapted" else None,
            prompt=prompt.text,
            messages=chat_message_list(prompt.messages),
            stop=prompt.stop,
            seed=self.manner.seed,
            sampling=generator_pb2.Sampling(
                temperature=self.manner.temperature,
                top_p=1.0,
                max_tokens=self.manner.max_tokens,
            ),
        )


@contextmanager
def _asked_of_a_model() -> Iterator[None]:
    """Refuse a server that writes no texts: of adaptations alone, as a cluster's front door is."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        raise InvalidInput(
            "the server keeps adaptations and has no model to ask, as a cluster's front door",
            field="--server",
            remedy=f"write the adapter here with `{program()} export`, and chat with its "
            "directory, without --server",
        ) from error


def prompt_of(message: str, format: QuestionFormat, *, before: Sequence[Message]) -> Prompt:
    """What a model is asked: a question as the evaluation asks it, or the next turn of a chat."""
    if format == "chat":
        return Prompt(messages=(*before, Message("user", message)))
    return get_domain("knowledge").question_prompt(Query("chat", message, ("",)), format)
