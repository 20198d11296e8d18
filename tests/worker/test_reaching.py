"""A worker asks whether the services are there before it sends them work."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc.aio
import pytest
from fake_services import Fakes, serve_fakes
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from controller_svc.worker.reaching import SERVICES, check_reachable
from controller_svc.worker.settings import ServiceAddresses
from seal.errors import Transient
from seal.records import Stage

GENERATOR, TRAINER, EVALUATOR = SERVICES.values()
READY, UNREADY = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """A server with nothing but health."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:{path}"
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_insecure_port(self.address)

    async def start(self, *services: str) -> None:
        for service in services:
            await self.say(service, READY)
        await self._server.start()

    async def say(self, service: str, status: int) -> None:
        await self._health.set(service, status)

    async def stop(self) -> None:
        await self._server.stop(0)


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "s")


async def test_services_that_serve_are_reachable(server: Server) -> None:
    await server.start(GENERATOR, TRAINER, EVALUATOR)
    await check_reachable(
        ServiceAddresses.all_at(server.address), Stage.ROLLOUT, within_seconds=0.0
    )
    await server.stop()


async def test_questions_of_one_s_own_need_the_evaluator_too(server: Server) -> None:
    await server.start(GENERATOR)
    with pytest.raises(Transient, match="evaluator"):
        await check_reachable(
            ServiceAddresses.all_at(server.address), Stage.QUESTION, within_seconds=0.0
        )
    await server.stop()


async def test_a_server_without_health_checks_counts_as_there() -> None:
    async with serve_fakes(Fakes()) as addresses:
        await check_reachable(addresses, Stage.ROLLOUT, within_seconds=0.0)


async def test_every_service_that_is_away_is_named_with_address_and_reason(
    server: Server,
) -> None:
    await server.start(GENERATOR, TRAINER)
    await server.say(TRAINER, UNREADY)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{nobody.getsockname()[1]}"
        addresses = ServiceAddresses(
            generator=server.address,
            trainer=server.address,
            evaluator=server.address,
            edit_generator=away,
        )
        with pytest.raises(Transient) as caught:
            await check_reachable(addresses, Stage.ROLLOUT, within_seconds=0.0)
    said = caught.value.message
    assert f"the trainer at {server.address} (it is not ready)" in said
    assert f"the evaluator at {server.address} (it has no {EVALUATOR})" in said
    assert f"the edit generator at {away} (" in said and "efused" in said
    assert "the generator" not in said
    await server.stop()


async def test_a_service_that_the_stage_does_not_call_may_be_away(server: Server) -> None:
    await server.start(GENERATOR, TRAINER, EVALUATOR)
    addresses = ServiceAddresses.all_at(server.address)
    await server.say(GENERATOR, UNREADY)
    await check_reachable(addresses, Stage.ADAPT, within_seconds=0.0)
    with pytest.raises(Transient, match="generator"):
        await check_reachable(addresses, Stage.PREPARE, within_seconds=0.0)
    await server.stop()


async def test_a_service_that_becomes_ready_meanwhile_is_waited_for(server: Server) -> None:
    await server.start(GENERATOR, TRAINER, EVALUATOR)
    await server.say(TRAINER, UNREADY)
    asking = asyncio.create_task(
        check_reachable(ServiceAddresses.all_at(server.address), Stage.ROLLOUT, within_seconds=30.0)
    )
    await asyncio.sleep(0.1)
    assert not asking.done()
    await server.say(TRAINER, READY)
    await asyncio.wait_for(asking, 5)
    await server.stop()
