"""How a call of a service is made: checked before, watched meanwhile, sent again after.

A service that is away, or full, is waited for: a call that fails with Transient or Exhausted is
sent again with jitter, unchanged and under the same request_id, so that it attaches to the work
that goes on; everything else is passed up at once. Every call has a deadline and every stream must
speak now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import monotonic
from typing import TypeVar

import grpc.aio
import stamina
from google.protobuf.message import Message

from controller_svc.worker.settings import WorkerSettings
from seal.errors import Internal, Retryable, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.rpc.client import rpc_errors

UNARY_TIMEOUT_SECONDS = 120.0
"""Deadline of a call that is answered at once."""

T = TypeVar("T")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")


class Calls:
    """Makes the calls of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings

    @property
    def timeout_seconds(self) -> float:
        """Deadline of a call that streams."""
        return self.settings.call_timeout_seconds

    def sized(self, request: Request) -> Request:
        """The request.

        Raises UnfitItem if it is too large for a service: its items are at fault.
        """
        if (size := request.ByteSize()) > (limit := self.settings.max_request_bytes):
            raise UnfitItem(
                f"{type(request).__name__} has {size} bytes, a service accepts {limit}",
                outcome=Outcome.TOO_LONG,
                remedy="shorten the documents, or keep fewer edits per context",
            )
        return request

    async def events(
        self, call: grpc.aio.UnaryStreamCall[Request, Response]
    ) -> AsyncGenerator[Response]:
        """The messages of one call, its errors as SealErrors."""
        messages, silence = aiter(call), self.settings.silence_timeout_seconds
        try:
            with rpc_errors():
                while True:
                    async with asyncio.timeout(silence):
                        message = await anext(messages)
                    yield message
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Transient(
                f"a stream said nothing for {silence:g} s", remedy="see the service's log"
            ) from None
        finally:
            call.cancel()

    async def answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """As `retried`, of a call that has one answer; its errors as SealErrors."""

        async def once() -> T:
            with rpc_errors():
                return await call()

        return await self.retried(once)

    async def retried(self, call: Callable[[], Awaitable[T]]) -> T:
        """What a call answers, sent again as long as its service is away or full."""
        settings, patience = self.settings, _Patience(self.settings)
        retries = stamina.retry_context(
            on=patience.pause_after,
            attempts=None,
            timeout=None,
            wait_initial=settings.retry_initial_seconds,
            wait_max=settings.retry_max_seconds,
            wait_jitter=settings.retry_initial_seconds,
        )
        async for attempt in retries:
            with attempt:
                patience.begin()
                return await call()
        raise Internal("a retry ended neither well nor badly")


class _Patience:
    """That with one call: it counts from the first failure after which nothing worked."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._begun = 0.0
        self._failing_since: float | None = None

    def begin(self) -> None:
        """A try begins."""
        self._begun = monotonic()

    def pause_after(self, error: Exception) -> bool | float:
        """Whether a try's error is worth another, after how many seconds if the server said so."""
        if not isinstance(error, Retryable):
            return False
        now = monotonic()
        lasted = now - self._begun
        # A stream that says nothing, or one thing, has been given up by then
        spoke = lasted > 2 * self._settings.silence_timeout_seconds
        # All that it said by its deadline has come to nothing
        too_long = lasted >= self._settings.call_timeout_seconds
        if self._failing_since is None or (spoke and not too_long):
            self._failing_since = self._begun if too_long else now
        if now - self._failing_since >= self._settings.patience_seconds:
            return False
        return error.retry_after_seconds or True
