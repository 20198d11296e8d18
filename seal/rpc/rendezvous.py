"""Which replica of a service gets a request: the same id always the same one, while that one lives.

Every client ranks the addresses behind a name by a hash of address and request id (rendezvous
hashing) and takes the first. So a retry finds the work that the request began, without anybody
keeping a table, and when a replica comes or goes only its own share of the ids moves. One that does
not answer is left out for a while, and the name is looked up again. What still reaches two replicas
is settled by the trainers' claims.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc.aio
import structlog

from seal.errors import Transient
from seal.rpc.client import ClientSettings, open_channel

log = structlog.get_logger(__name__)

RESOLVE_SECONDS = 30.0
"""A name is looked up again after so long, so that new replicas get their share."""
AVOID_SECONDS = 10.0
"""A replica that did not answer gets no request for so long, if there is another one."""

Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
"""From an address to the gRPC targets behind it."""


async def resolve_targets(address: str) -> tuple[str, ...]:
    """The gRPC targets behind `host:port`, `dns:///host:port`, `ipv4:a:1,b:2` or `unix:/path`.

    Of a host with addresses of both families only the IPv4 ones are taken: they are the same
    replicas. Raises Transient if a name is not known (yet).
    """
    scheme, separator, rest = address.partition(":")
    if scheme in ("ipv4", "ipv6") and separator:
        return tuple(f"{scheme}:{one}" for one in rest.split(","))
    if scheme in ("unix", "xds"):
        return (address,)
    host, _, port = address.removeprefix("dns:").lstrip("/").rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )
    except (OSError, ValueError) as error:
        raise Transient(
            f"{address} cannot be looked up: {error}",
            remedy="check the address and that the service exists",
        ) from error
    version_4 = {f"ipv4:{name[0]}:{port}" for family, *_, name in found if family == socket.AF_INET}
    version_6 = {f"ipv6:[{name[0]}]:{port}" for family, *_, name in found}
    return tuple(sorted(version_4 or version_6))


class Replicas:
    """Channels to all replicas behind one address; belongs to one event loop."""

    def __init__(
        self,
        address: str,
        *,
        settings: ClientSettings | None = None,
        resolve: Resolve = resolve_targets,
    ) -> None:
        self._address, self._settings, self._resolve = address, settings, resolve
        self._targets: tuple[str, ...] = ()
        self._resolved_at = float("-inf")
        self._failed_at: dict[str, float] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._in_use: Counter[str] = Counter()

    @asynccontextmanager
    async def channel(self, request_id: str) -> AsyncIterator[grpc.aio.Channel]:
        """The channel for one call of a request.

        If the block ends with Transient, the next call of the request goes to another replica.
        """
        target = await self._choose(request_id)
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = open_channel(target, settings=self._settings)
        self._in_use[target] += 1
        try:
            yield channel
        except Transient:
            self._failed_at[target] = time.monotonic()
            self._resolved_at = float("-inf")
            raise
        finally:
            self._in_use[target] -= 1

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _choose(self, request_id: str) -> str:
        if time.monotonic() - self._resolved_at >= RESOLVE_SECONDS:
            await self._look_up()
        now = time.monotonic()
        answering = [
            target
            for target in self._targets
            if now - self._failed_at.get(target, float("-inf")) >= AVOID_SECONDS
        ]
        return max(answering or self._targets, key=lambda target: _weight(target, request_id))

    async def _look_up(self) -> None:
        """Replace the list of replicas; keep the old one while the name cannot be looked up."""
        try:
            targets = await self._resolve(self._address)
        except Transient as error:
            if not self._targets:
                raise
            log.warning("replicas not looked up", address=self._address, reason=str(error))
            return
        self._targets, self._resolved_at = targets, time.monotonic()
        for gone in [
            target
            for target in self._channels
            if target not in targets and not self._in_use[target]
        ]:
            self._failed_at.pop(gone, None)
            if (channel := self._channels.pop(gone, None)) is not None:  # else another call's look
                await channel.close()


def _weight(target: str, request_id: str) -> bytes:
    return hashlib.sha256(f"{target}\n{request_id}".encode()).digest()
