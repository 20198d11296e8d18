"""One model at one endpoint: asked with bounds, sent again with patience, paid for knowingly.

At most so many requests are outstanding. One that fails for the moment is sent again with jitter as
long as the patience lasts. When the endpoint says when to come back, all requests wait until then.
Once one has been given up after all its patience, in which no other was answered either, the
endpoint counts as away and those that follow fail at once for a while: an outage costs one
patience, not one for each of ten thousand requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from pydantic import SecretStr

from seal.endpoints.faults import from_status
from seal.endpoints.replies import Completion, read_reply
from seal.errors import PreconditionFailed, Retryable, SealError, Transient
from seal.prompts import Message
from seal.settings import DEFAULT_LIMITS, EndpointLimits, EndpointSettings

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5
"""Pause before a request is sent a second time, on average; it doubles from there."""
LONGEST_PAUSE_SECONDS = 20.0
"""Longest pause that nobody asked for."""
AWAY_SECONDS = 20.0
"""How long an endpoint counts as away."""
MAX_STOPS = 4
"""Stop texts that an endpoint takes."""
_NO_KEY = "none"
"""What is sent where there is no key: the client wants one, and takes none from elsewhere then."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a text is drawn."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_tokens: int
    seed: int | None = None
    """As far as the endpoint keeps it."""
    stop: tuple[str, ...] = ()
    """Texts at which it ends."""
    json_schema: str = ""
    """JSON schema that it conforms to, in a chat; empty for none."""


class Endpoint:
    """A client of one model; belongs to one event loop."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        key: SecretStr | None,
        limits: EndpointLimits = DEFAULT_LIMITS,
    ) -> None:
        self.model = settings.model
        self.host = urlsplit(settings.base_url).netloc
        self._limits = limits
        self._client = AsyncOpenAI(
            api_key=key.get_secret_value() if key else _NO_KEY,
            base_url=settings.base_url,
            timeout=limits.timeout_seconds,
            max_retries=0,
        )
        self._places = asyncio.Semaphore(limits.concurrency)
        self._open_at = 0.0
        """When the endpoint wants to be asked again."""
        self._away_until = 0.0
        self._answered_at = 0.0
        """When it last answered anybody."""
        self.calls = 0
        """Requests that were sent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """What the model says next in a chat.

        Raises:
            Transient: it is away, or what it answers cannot be read, after all patience.
            Exhausted: it takes no more requests now, after all patience.
            PreconditionFailed: it does not take the key, has no such model, is not allowed to be
                asked any more, or another model answered.
            UnfitItem: it refuses this request.

        """
        turns: Any = [{"role": one.role, "content": one.content} for one in messages]
        return await self._ask(
            lambda: self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=turns, **_parameters(sampling)
            )
        )

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """How the model goes on from a text. Raises as `chat`."""
        return await self._ask(
            lambda: self._client.completions.with_raw_response.create(
                model=self.model, prompt=prompt, **_parameters(sampling)
            )
        )

    async def _ask(self, send: Callable[[], Awaitable[Any]]) -> Completion:
        """Send a request until it is answered, or patience ends.

        Patience begins with the first time that it is sent: of many requests most wait longer than
        that for a place, and one of these that fails for a moment is no outage.
        """
        started, pause = 0.0, FIRST_PAUSE_SECONDS
        while True:
            await self._until_open()
            try:
                async with self._places:
                    await self._until_open()
                    started = started or time.monotonic()
                    completion = await self._once(send)
                    self._answered_at = time.monotonic()
                    return completion
            except _Away:
                raise
            except Retryable as error:
                wait = error.retry_after_seconds
                if wait is not None:
                    self._open_at = max(self._open_at, time.monotonic() + wait)
                else:
                    wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                if time.monotonic() + wait - started > self._limits.patience_seconds:
                    if self._answered_at < started:
                        self._take_for_away(error)
                    raise
                await asyncio.sleep(wait)

    def _take_for_away(self, error: Retryable) -> None:
        now = time.monotonic()
        if now >= self._away_until:
            log.warning("endpoint away", host=self.host, reason=error.message)
        self._away_until = now + AWAY_SECONDS

    async def _until_open(self) -> None:
        """Wait as the endpoint has asked for.

        Raises Transient while it counts as away, or wants to be left alone for longer than the
        patience lasts.
        """
        if (left := self._away_until - time.monotonic()) > 0:
            raise _Away(
                f"the endpoint {self.host} is away",
                remedy="see whether it is up",
                retry_after_seconds=left,
            )
        while (left := self._open_at - time.monotonic()) > 0:
            if left > self._limits.patience_seconds:
                raise _Away(
                    f"the endpoint {self.host} takes no requests for {left:.0f} s",
                    remedy="send fewer at once, or wait",
                    retry_after_seconds=left,
                )
            await asyncio.sleep(left)

    async def _once(self, send: Callable[[], Awaitable[Any]]) -> Completion:
        """One request. No error holds the client's: it would show the request and the answer."""
        limits = self._limits
        if limits.max_calls and self.calls >= limits.max_calls:
            raise PreconditionFailed(
                f"the {limits.max_calls} requests that may be sent to {self.host} are spent",
                field="max_calls",
                remedy="allow more, or 0 for no bound",
            )
        self.calls += 1
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                reply = await send()
            return read_reply(reply.content, model=self.model)
        except APIStatusError as error:
            failure: SealError = from_status(error, host=self.host)
        except (TimeoutError, APIConnectionError) as error:
            slow = isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
            problem = (
                f"did not answer within {limits.timeout_seconds:g} s"
                if slow
                else "cannot be reached, or ended the connection"
            )
            failure = Transient(
                f"the endpoint {self.host} {problem}", remedy="see whether it is up"
            )
        raise failure from None


class _Away(Transient):
    """Refused without a request: no patience is left for it."""


def _parameters(sampling: Sampling) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.temperature > 0:  # some endpoints refuse both, and greedily it means nothing
        parameters["top_p"] = sampling.top_p
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed % 2**31  # more than some endpoints, or JSON, can hold
    if sampling.stop:
        parameters["stop"] = list(sampling.stop[:MAX_STOPS])
    if sampling.json_schema:
        parameters["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": json.loads(sampling.json_schema)},
        }
    return parameters
