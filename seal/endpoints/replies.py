"""What endpoints answer, read with care: any of it may be missing, broken or another's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError

from seal.errors import PreconditionFailed, Transient

UNREADABLE = "an endpoint's answer could not be read"


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One text that a model wrote."""

    text: str
    tokens: int
    """Tokens that it wrote; 0 where the endpoint does not say."""
    truncated: bool
    """The bound of new tokens cut it off."""
    logprob: float | None
    """Mean log p of its tokens, nats; None unless the endpoint gives it."""


class _TokenLogprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_TokenLogprob] | None = None
    token_logprobs: list[float | None] | None = None

    @property
    def mean(self) -> float | None:
        values = [one.logprob for one in self.content or ()]
        values += [one for one in self.token_logprobs or () if one is not None]
        return sum(values) / len(values) if values else None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    completion_tokens: int = Field(default=0, ge=0, le=2**31)


class _Reply(BaseModel):
    model: str | None = None
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_reply(content: bytes, *, model: str) -> Completion:
    """The text of a reply to a chat or a completion.

    Raises:
        Transient: it is no such reply; whoever cut or broke it may do better.
        PreconditionFailed: another model wrote it.

    """
    try:
        reply = _Reply.model_validate_json(content)
    except ValidationError:  # its message repeats what was answered
        raise Transient(UNREADABLE, remedy="does its URL name an OpenAI-compatible API?") from None
    if reply.model and not same_model(model, reply.model):
        raise PreconditionFailed(
            f"the endpoint was asked for {model!r}, and another model answered",
            field="model",
            remedy="name the model as the endpoint does",
        )
    choice = reply.choices[0]
    text = choice.message.content if choice.message is not None else choice.text
    # Of a model that thinks aloud first: its thoughts, told apart, may use up the bound
    if text is None and choice.finish_reason not in ("content_filter", "length"):
        raise Transient(UNREADABLE, remedy="does its URL name an OpenAI-compatible API?")
    return Completion(
        text=text or "",
        tokens=reply.usage.completion_tokens if reply.usage else 0,
        truncated=choice.finish_reason == "length",
        logprob=choice.logprobs.mean if choice.logprobs else None,
    )


_VERSION = re.compile(r"[-:@](?:\d[\w.-]*|latest)")
"""What endpoints append to the name that they were asked for: gpt-4.1 is gpt-4.1-2025-04-14."""


def same_model(asked: str, said: str) -> bool:
    """Whether the model that answered is the one that was asked for.

    Endpoints append a version and leave out, or put before it, whose model it is. A name that goes
    on with anything else (`-mini`) is another model's.
    """
    own, other = asked.rsplit("/", 1)[-1].casefold(), said.rsplit("/", 1)[-1].casefold()
    return other == own or (
        other.startswith(own) and _VERSION.fullmatch(other[len(own) :]) is not None
    )
