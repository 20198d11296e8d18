"""Whether the services answer at all, asked by gRPC's health protocol before any work is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller_svc.worker.settings import ServiceAddresses
from seal.errors import NotFound, SealError, Transient
from seal.rpc.client import open_channel, rpc_errors
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Pause between two questions to a service that did not serve."""
ANSWER_SECONDS = 5.0
"""Deadline of one question."""
GENERATOR = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
TRAINER = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name
EVALUATOR = evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name


@dataclass(frozen=True)
class Away:
    """A service that does not serve."""

    role: str
    """What it is there for: a field of `ServiceAddresses`."""
    address: str
    reason: str
    """In words, of gRPC or of its health."""

    def __str__(self) -> str:
        """The whole in a clause."""
        return f"the {self.role.replace('_', ' ')} at {self.address} ({self.reason})"


async def services_away(addresses: ServiceAddresses, *, within_seconds: float) -> tuple[Away, ...]:
    """The services that have not served once within this time, all asked side by side."""
    found = await asyncio.gather(
        *(_asked(role, address, name, within_seconds) for role, address, name in _each(addresses))
    )
    return tuple(away for away in found if away is not None)


async def check_reachable(addresses: ServiceAddresses, *, within_seconds: float) -> None:
    """Wait until every service serves.

    Raises Transient naming those that have not within this time, with their addresses and reasons.
    """
    if away := await services_away(addresses, within_seconds=within_seconds):
        raise Transient(
            f"not reachable within {within_seconds:g} s: " + ", ".join(map(str, away)),
            remedy="see whether their pods run and are ready, and whether the addresses are right",
        )


def _each(addresses: ServiceAddresses) -> Iterator[tuple[str, str, str]]:
    """(role, address, full name of the service) of all that there are."""
    services = {
        "generator": GENERATOR,
        "trainer": TRAINER,
        "evaluator": EVALUATOR,
        "writer_trainer": TRAINER,
        "edit_generator": GENERATOR,
    }
    for role, name in services.items():
        if address := getattr(addresses, role):
            yield role, address, name


async def _asked(role: str, address: str, service: str, within_seconds: float) -> Away | None:
    """One service, asked until it serves or the time is over; None once it serves."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_seconds
    async with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        said = ""
        while (reason := await _reason_away(stub, service)) is not None:
            left = deadline - loop.time()
            if left <= 0:
                return Away(role, address, reason)
            if reason != said:
                log.info("service not reachable yet", role=role, address=address, reason=reason)
                said = reason
            await asyncio.sleep(min(LOOK_SECONDS, left))
    return None


async def _reason_away(stub: Any, service: str) -> str | None:
    """Why a service does not serve at the moment; None if it does."""
    try:
        with rpc_errors():
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await stub.Check(request, timeout=ANSWER_SECONDS)
    except NotFound:
        return f"it has no {service}"
    except SealError as error:
        cause = error.__cause__
        without_health = isinstance(cause, grpc.aio.AioRpcError) and (
            cause.code() is grpc.StatusCode.UNIMPLEMENTED
        )
        return None if without_health else error.message
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else "it is not ready"
