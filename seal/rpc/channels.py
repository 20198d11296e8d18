"""Channels whose calls carry the hop: request id and trace go along with whatever is called.

They wrap a channel in place of gRPC's own interceptors, whose calls on asyncio behave otherwise
when they are cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from seal.rpc.hops import KEYS, current_hop
from seal.rpc.tracing import tracing

Make = Callable[..., Callable[..., Any]]

_followed: set[asyncio.Task[str]] = set()
"""Nothing else holds on to these tasks."""


def carry_hops(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """The same channel; each of its calls carries the hop in which it is made."""
    for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        setattr(channel, kind, _carrying(getattr(channel, kind)))
    return channel


def _carrying(make: Make) -> Make:
    def made(method: str, *given: Any, **named: Any) -> Callable[..., Any]:
        inner = make(method, *given, **named)
        name = method.removeprefix("/")

        def call(*arguments: Any, metadata: Any = None, **options: Any) -> Any:
            span = tracing().span(name, current_hop(), answers=False)
            own = [(key, value) for key, value in metadata or () if key not in KEYS]
            begun = inner(*arguments, metadata=(*own, *span.hop.metadata), **options)
            if span.end is not None:
                _follow(begun, span.end)
            return begun

        return call

    return made


def carry_hops_blocking(channel: grpc.Channel) -> grpc.Channel:
    """A channel for blocking stubs whose calls carry the hop in which they are made."""
    return grpc.intercept_channel(channel, _Carrier())


class _Details(NamedTuple):
    """`grpc.ClientCallDetails`, of which gRPC has no class that can be made."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Carrier(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Puts the hop among the metadata of every call, and follows the call to its end."""

    def _carried(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        span = tracing().span(details.method.removeprefix("/"), current_hop(), answers=False)
        own = ((key, value) for key, value in details.metadata or () if key not in KEYS)
        carried = _Details(
            details.method,
            details.timeout,
            (*own, *span.hop.metadata),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        call = proceed(carried, request)
        if (end := span.end) is not None:
            call.add_done_callback(lambda ended: end(ended.code().name))
        return call

    intercept_unary_unary = _carried  # type: ignore[assignment]  # the four differ in types alone
    intercept_unary_stream = _carried  # type: ignore[assignment]
    intercept_stream_unary = _carried  # type: ignore[assignment]
    intercept_stream_stream = _carried  # type: ignore[assignment]


def _follow(call: grpc.aio.Call, end: Callable[[str], None]) -> None:
    """Tell how a call has ended, once it has; its loop may end before it."""

    async def code() -> str:
        return (await call.code()).name

    def told(following: asyncio.Task[str]) -> None:
        _followed.discard(following)
        end("CANCELLED" if following.cancelled() else following.result())

    following = asyncio.create_task(code())
    _followed.add(following)
    following.add_done_callback(told)
