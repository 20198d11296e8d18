"""Whether the services that a stage calls are there.

A worker waits for a service that is away, as long as its patience lasts, and says nothing
meanwhile. So that its owner hears why a run does not get on, the controller asks the services'
health itself: each at most once in a while, whoever wants to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller_svc.worker.settings import ServiceAddresses
from seal.records import Stage
from seal.rpc.client import open_channel

FRESH_SECONDS = 10.0
"""An answer counts for so long."""
TIMEOUT_SECONDS = 3.0
GENERATOR, TRAINER, EVALUATOR = "generator", "trainer", "evaluator"
_SERVICES: Mapping[str, str] = MappingProxyType(
    {
        GENERATOR: "seal.v1.GeneratorService",
        TRAINER: "seal.v1.TrainerService",
        EVALUATOR: "seal.v1.EvaluatorService",
    }
)
_CALLED: Mapping[Stage, tuple[str, ...]] = MappingProxyType(
    {
        Stage.PREPARE: (TRAINER,),
        Stage.QUESTION: (GENERATOR,),
        Stage.ROLLOUT: (GENERATOR, TRAINER, EVALUATOR),
        Stage.IMPROVE: (),  # it has an engine of its own
        Stage.VALIDATE: (GENERATOR, TRAINER, EVALUATOR),
        Stage.ADAPT: (TRAINER, EVALUATOR),
    }
)
"""What the workers of a stage cannot do without."""


class Services(Protocol):
    """Whoever knows whether services answer."""

    async def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing does."""


class ServiceHealth:
    """Asks them. An async context manager that owns its channels."""

    def __init__(
        self, addresses: ServiceAddresses, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._addresses = {name: getattr(addresses, name) for name in _SERVICES}
        self._clock = clock
        self._asking = {name: asyncio.Lock() for name in _SERVICES}
        self._answers: dict[str, tuple[float, str]] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> ServiceHealth:
        self._channels = {
            address: open_channel(address) for address in set(self._addresses.values())
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def why_not(self, stage: Stage) -> str:
        """What keeps a stage's workers, for people; empty if nothing does."""
        answers = await asyncio.gather(*map(self._answer, _CALLED[stage]))
        return "; ".join(answer for answer in answers if answer)

    async def _answer(self, name: str) -> str:
        async with self._asking[name]:
            asked_at, answer = self._answers.get(name, (float("-inf"), ""))
            if self._clock() - asked_at >= FRESH_SECONDS:
                answer = await self._ask(name)
                self._answers[name] = (self._clock(), answer)
        return answer

    async def _ask(self, name: str) -> str:
        address = self._addresses[name]
        request = health_pb2.HealthCheckRequest(service=_SERVICES[name])
        health: Any = health_pb2_grpc.HealthStub(self._channels[address])  # it has no types
        try:
            reply = await health.Check(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"the {name} at {address} does not answer: {error.code().name}"
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            return f"the {name} at {address} is not ready"
        return ""
