"""A server that says one thing: not yet.

While a process still waits for what it needs, its address answers already. The process lives
(health of `""`), its service does not serve, and every call is UNAVAILABLE with the reason, so that
callers try again and a person who asks is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seal.errors import Transient
from seal.rpc.interceptor import abort
from seal.rpc.server import bind, server_options
from seal.rpc.settings import ServerSettings

RETRY_AFTER_SECONDS = 2.0
"""When a caller may ask again."""


@asynccontextmanager
async def not_ready(
    address: str, *, why: str, settings: ServerSettings | None = None
) -> AsyncIterator[str]:
    """Say it for the length of the block; gives the address, with the real port.

    The address is free at the end. Raises InvalidInput naming one that is in use or is none.
    """
    server = grpc.aio.server(options=server_options(settings or ServerSettings(), address))
    health_pb2_grpc.add_HealthServicer_to_server(_NotServing(), server)
    server.add_generic_rpc_handlers((_Unavailable(why),))
    bound = bind(server, address)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0.0)


def _status(service: str) -> health_pb2.HealthCheckResponse:
    """Only the process itself serves."""
    kind = health_pb2.HealthCheckResponse
    return kind(status=kind.NOT_SERVING if service else kind.SERVING)


class _NotServing(health_pb2_grpc.HealthServicer):
    """Health of a process whose services are not there yet; their names are not known."""

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        return _status(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield _status(request.service)
        await asyncio.Event().wait()  # nothing changes until the server stops


class _Unavailable(grpc.GenericRpcHandler):
    """Answers every other method."""

    def __init__(self, why: str) -> None:
        self._error = Transient(
            why, remedy="try again later", retry_after_seconds=RETRY_AFTER_SECONDS
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await abort(context, self._error)
