"""Whether the services answer at all, asked by gRPC's health protocol before any work is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from controller_svc.worker.settings import ServiceAddresses
from seal.errors import Transient
from seal.records import Stage
from seal.rpc.probe import why_not
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

log = structlog.get_logger(__name__)

GENERATOR, TRAINER, EVALUATOR = "generator", "trainer", "evaluator"
SERVICES: Mapping[str, str] = MappingProxyType(
    {
        GENERATOR: generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,
        TRAINER: trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name,
        EVALUATOR: evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name,
    }
)
"""Full names."""
CALLED: Mapping[Stage, tuple[str, ...]] = MappingProxyType(
    {
        Stage.PREPARE: (GENERATOR, TRAINER, EVALUATOR),
        Stage.QUESTION: (GENERATOR, EVALUATOR),
        Stage.ROLLOUT: (GENERATOR, TRAINER, EVALUATOR),
        Stage.IMPROVE: (),  # it has an engine of its own
        Stage.VALIDATE: (GENERATOR, TRAINER, EVALUATOR),
        Stage.ADAPT: (TRAINER, EVALUATOR),
    }
)
"""What the workers of a stage cannot do without."""
_MORE_OF = {GENERATOR: "edit_generator", TRAINER: "writer_trainer"}
"""Where a run has two of a service: the address of the other one."""


@dataclass(frozen=True)
class Called:
    """A service that a stage calls."""

    role: str
    """What it is there for: a field of `ServiceAddresses`."""
    address: str
    service: str
    """Full name."""


@dataclass(frozen=True)
class Away:
    """A service that does not serve."""

    called: Called
    reason: str
    """In words, of gRPC or of its health."""

    def __str__(self) -> str:
        """The whole in a clause."""
        role = self.called.role.replace("_", " ")
        return f"the {role} at {self.called.address} ({self.reason})"


async def check_reachable(
    addresses: ServiceAddresses, stage: Stage, *, within_seconds: float
) -> None:
    """Wait until every service that a stage calls serves; all are asked side by side.

    Raises Transient naming those that have not within this time, with their addresses and reasons.
    """
    found = await asyncio.gather(
        *(ask(one, within_seconds=within_seconds) for one in called(addresses, stage))
    )
    if away := [one for one in found if one is not None]:
        raise Transient(
            f"not reachable within {within_seconds:g} s: " + ", ".join(map(str, away)),
            remedy="see whether their pods run and are ready, and whether the addresses are right",
        )


def called(addresses: ServiceAddresses, stage: Stage) -> Iterator[Called]:
    """All that a stage calls."""
    for name in CALLED[stage]:
        for role in (name, _MORE_OF.get(name, "")):
            if role and (address := getattr(addresses, role)):
                yield Called(role, address, SERVICES[name])


async def ask(one: Called, *, within_seconds: float) -> Away | None:
    """Ask a service until it serves or the time is over; None once it serves."""

    def tell(reason: str) -> None:
        log.info("service not reachable yet", role=one.role, address=one.address, reason=reason)

    reason = await why_not(
        one.address,
        one.service,
        within_seconds=within_seconds,
        needs_health=False,
        on_reason=tell,
    )
    return Away(one, reason) if reason else None
