"""Whether the services that a stage calls are there.

A worker waits for a service that is away, as long as its patience lasts, and says nothing
meanwhile. So that its owner hears why a run does not get on, the controller asks the services'
health itself: each at most once in a while, however many want to know. No look at an object waits
for the answer: it takes the last one, and the next look the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller_svc.worker.reaching import CALLED, SERVICES
from controller_svc.worker.settings import ServiceAddresses
from seal.records import Stage
from seal.rpc.client import open_channel

FRESH_SECONDS = 10.0
"""Between two questions to a service."""
TIMEOUT_SECONDS = 3.0


class Services(Protocol):
    """Whoever knows whether services answer."""

    def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing is known to."""


class ServiceHealth:
    """Asks them. An async context manager that owns its channels."""

    def __init__(
        self, addresses: ServiceAddresses, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._addresses = {name: getattr(addresses, name) for name in SERVICES}
        self._clock = clock
        self._asked_at: dict[str, float] = {}
        self._answers: dict[str, str] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> ServiceHealth:
        self._channels = {
            address: open_channel(address) for address in set(self._addresses.values())
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for asking in self._asking:
            asking.cancel()
        for channel in self._channels.values():
            await channel.close()

    def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing is known to."""
        for name in CALLED[stage]:
            self._refresh(name)
        answers = (self._answers.get(name, "") for name in CALLED[stage])
        return "; ".join(answer for answer in answers if answer)

    def _refresh(self, name: str) -> None:
        """Ask a service, unless it was asked just now."""
        now = self._clock()
        if now - self._asked_at.get(name, float("-inf")) < FRESH_SECONDS:
            return
        self._asked_at[name] = now
        asking = asyncio.create_task(self._ask(name))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _ask(self, name: str) -> None:
        address = self._addresses[name]
        health: Any = health_pb2_grpc.HealthStub(self._channels[address])  # it has no types
        request = health_pb2.HealthCheckRequest(service=SERVICES[name])
        answer = ""
        try:
            reply = await health.Check(request, timeout=TIMEOUT_SECONDS)
            if reply.status != health_pb2.HealthCheckResponse.SERVING:
                answer = f"the {name} at {address} is not ready"
        except grpc.aio.AioRpcError as error:
            answer = f"the {name} at {address} does not answer: {error.code().name}"
        self._answers[name] = answer
