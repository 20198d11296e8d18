"""One way to run a gRPC server: health, reflection, limits, errors, and an end that loses no call.

A service is a function that adds its servicer to the server and returns its full name. Health knows
`""` (the process lives) and each service by name (it is ready). At the end: NOT_SERVING, wait until
load balancers have seen it, refuse new calls, let the running ones end (`lifecycle.py`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seal.errors import InvalidInput
from seal.metrics import Metrics, metrics
from seal.rpc.interceptor import CallInterceptor
from seal.rpc.settings import ServerSettings

log = structlog.get_logger(__name__)

Registration = Callable[[grpc.aio.Server], str]
"""Adds one servicer and returns the full name of its service."""

_MAX_UNIX_PATH_BYTES = 107
_CANCELLED_SECONDS = 2.0
"""How long the end of a server waits for calls that it has cancelled."""


class RunningServer:
    """A server that accepts calls; `start_server` makes it."""

    def __init__(
        self,
        server: grpc.aio.Server,
        *,
        address: str,
        health: health.aio.HealthServicer,
        calls: CallInterceptor,
        settings: ServerSettings,
    ) -> None:
        self.address = address
        """What a client connects to; the port is the real one where 0 was asked for."""
        self._server, self._health, self._calls, self._settings = server, health, calls, settings
        self._leaving: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def set_ready(self, service: str, ready: bool) -> None:
        """Tell health checks that a service can or cannot work at the moment."""
        serving = (
            health_pb2.HealthCheckResponse.SERVING
            if ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        await self._health.set(service, serving)

    async def leave(self) -> None:
        """Say NOT_SERVING, and wait until load balancers have seen it; calls are still accepted."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        await asyncio.shield(self._leaving)

    async def stop(self, grace_seconds: float) -> None:
        """Stop serving; a second call waits for the same end.

        Leave, refuse new calls, wait for the running ones at most `grace_seconds`, cancel the rest.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_seconds))
        await asyncio.shield(self._stopping)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self._server.wait_for_termination()

    async def _leave(self) -> None:
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.unready_seconds)

    async def _stop(self, grace_seconds: float) -> None:
        await self.leave()
        ending = asyncio.create_task(
            self._server.stop(grace_seconds)
        )  # never call it twice at once: grpc.aio crashes the process
        idle = asyncio.create_task(self._calls.wait_idle())
        await asyncio.wait({ending, idle}, return_when=asyncio.FIRST_COMPLETED)
        self._calls.end_watches()
        await ending
        # A loop that closes over a call has grpc print a traceback of its own on stderr
        await asyncio.wait({idle}, timeout=_CANCELLED_SECONDS)
        idle.cancel()
        log.info("server stopped", address=self.address)


async def start_server(
    registrations: Sequence[Registration],
    *,
    address: str,
    settings: ServerSettings | None = None,
    metrics: Metrics = metrics,
) -> RunningServer:
    """Start a server with these services.

    `address`: `host:port` (port 0 takes a free one) or `unix:/path`. Raises InvalidInput naming an
    address that is in use or is none.
    """
    settings = settings or ServerSettings()
    calls = CallInterceptor(metrics, max_calls=settings.max_concurrent_calls)
    server = grpc.aio.server(interceptors=[calls], options=server_options(settings, address))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [register(server) for register in registrations]
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    for name in names:
        calls.expect(name)
    bound = bind(server, address)
    await server.start()
    running = RunningServer(server, address=bound, health=servicer, calls=calls, settings=settings)
    for name in names:
        await running.set_ready(name, True)
    log.info("server started", address=bound, services=names)
    return running


def server_options(settings: ServerSettings, address: str) -> list[tuple[str, int]]:
    """What gRPC is told about a server at this address."""
    keepalive_ms = round(settings.keepalive_seconds * 1000)
    options = [
        ("grpc.so_reuseport", 0),  # otherwise two servers share a port without a word
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
    ]
    if settings.max_connection_seconds and not address.startswith("unix:"):
        options.append(
            ("grpc.max_connection_age_ms", round(settings.max_connection_seconds * 1000))
        )
    return options


def check_address(address: str) -> None:
    """Whether a server could listen there; the costly part of a start comes after this.

    Raises InvalidInput naming an address that is in use or is none.
    """
    if address.startswith("unix:"):
        _check_unix_path(address)
        return
    _check_host_and_port(address)
    host, _, port = address.rpartition(":")
    try:
        known = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, name = known[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
    except OSError as error:
        raise _not_free(address) from error


def _not_free(address: str) -> InvalidInput:
    return InvalidInput(
        f"address {address} is in use or not an address of this machine",
        field="address",
        remedy="stop the process that holds it, or choose another with --address; port 0 "
        "takes a free one",
    )


def bind(server: grpc.aio.Server, address: str) -> str:
    """Take the address; returns it with the real port.

    Raises InvalidInput naming one that is in use or is none.
    """
    if address.startswith("unix:"):
        _check_unix_path(address)
    else:
        _check_host_and_port(address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _not_free(address) from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _check_host_and_port(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InvalidInput(
            f"{address!r} is no address",
            field="address",
            remedy="write host:port, for example 0.0.0.0:50051, or unix:/path/seal.sock",
        )


def _check_unix_path(address: str) -> None:
    """Look what is in the way.

    gRPC would remove any socket, also one that another server listens on.
    """
    path = Path(address.removeprefix("unix:").removeprefix("//"))
    if not path.name or len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        raise InvalidInput(
            f"{address} is empty or longer than {_MAX_UNIX_PATH_BYTES} bytes",
            field="address",
            remedy="choose a shorter path",
        )
    if not path.parent.is_dir():
        raise InvalidInput(
            f"the directory of {address} does not exist",
            field="address",
            remedy=f"create {path.parent}",
        )
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise InvalidInput(
            f"{path} exists and is no socket",
            field="address",
            remedy="choose another path for the socket",
        )
    with (
        socket.socket(socket.AF_UNIX) as probe,
        suppress(ConnectionRefusedError, FileNotFoundError),
    ):
        probe.connect(str(path))
        raise InvalidInput(
            f"address {address} is in use",
            field="address",
            remedy="stop the process that listens on it, or choose another path",
        )
