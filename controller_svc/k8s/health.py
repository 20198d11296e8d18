"""What the kubelet asks: `/healthz` whether the event loop moves, `/readyz` whether work is done.

Both are answered on the event loop: one that hangs answers neither.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from seal.errors import InvalidInput


@asynccontextmanager
async def serve_health(
    why_not_ready: Callable[[], str], *, port: int, host: str
) -> AsyncIterator[int]:
    """Answer until the end of the block; gives the port.

    `why_not_ready` says what is missing; empty if nothing is. Port 0 takes a free one. At the host
    `::` it is answered by IPv4, too.

    Raises:
        InvalidInput: the port is in use.

    """

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="the loop moves\n")

    async def ready(_: web.Request) -> web.Response:
        missing = why_not_ready()
        return web.Response(text=f"{missing or 'ready'}\n", status=503 if missing else 200)

    app = web.Application()
    app.router.add_get("/healthz", live)
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await _site(runner, host, port).start()
        except OSError as error:
            raise InvalidInput(
                f"health port {host}:{port} cannot be opened: {error}",
                field="health_port",
                remedy="choose another port with --health-port",
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _site(runner: web.AppRunner, host: str, port: int) -> web.BaseSite:
    """A loop's own sockets of IPv6 take no calls by IPv4."""
    if host != "::":
        return web.TCPSite(runner, host, port)
    both = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return web.SockSite(runner, both)
