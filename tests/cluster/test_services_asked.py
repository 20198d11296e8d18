"""Why a stage waits for a service is known, and no look at an object waits for the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from eventually import until
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from controller_svc.k8s.services import FRESH_SECONDS, ServiceHealth
from controller_svc.worker.settings import ServiceAddresses
from seal.records import Stage

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


@asynccontextmanager
async def services(
    port: int = 0, **states: object
) -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    """One server of all three, each in its state; SERVING unless it is said."""
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    for name in ("Generator", "Trainer", "Evaluator"):
        await servicer.set(f"seal.v1.{name}Service", states.get(name, SERVING))
    await server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        await server.stop(0)


async def test_services_that_serve_keep_nobody() -> None:
    async with services() as (address, _), ServiceHealth(ServiceAddresses.all_at(address)) as asked:
        assert asked.why_not(Stage.ROLLOUT) == ""
        await until(lambda: len(asked._answers) == 3)
        assert asked.why_not(Stage.ROLLOUT) == ""


@pytest.mark.parametrize(
    ("stage", "keeps"),
    [
        (Stage.PREPARE, True), (Stage.QUESTION, True), (Stage.ROLLOUT, True),
        (Stage.IMPROVE, False), (Stage.VALIDATE, True), (Stage.ADAPT, False),
    ],
)  # fmt: skip
async def test_a_generator_that_is_not_ready_keeps_the_stages_that_call_it(
    stage: Stage, keeps: bool
) -> None:
    async with (
        services(Generator=NOT_SERVING) as (address, _),
        ServiceHealth(ServiceAddresses.all_at(address)) as asked,
    ):
        for one in Stage:
            asked.why_not(one)
        await until(lambda: len(asked._answers) == 3)
        told = asked.why_not(stage)
    assert told == (f"the generator at {address} (it is not ready)" if keeps else "")


async def test_one_that_is_away_is_named_and_asked_again_in_a_while(unused_tcp_port: int) -> None:
    now = 0.0
    late = f"127.0.0.1:{unused_tcp_port}"
    async with services() as (address, _):
        addresses = ServiceAddresses.all_at(address).model_copy(update={"writer_trainer": late})
        async with ServiceHealth(addresses, clock=lambda: now) as asked:
            asked.why_not(Stage.PREPARE)
            await until(lambda: asked._answers and not asked._asking)
            told = asked.why_not(Stage.PREPARE)
            assert told.startswith(f"the writer trainer at {late} (")
            async with services(port=unused_tcp_port):
                now += FRESH_SECONDS / 2
                assert asked.why_not(Stage.PREPARE) == told and not asked._asking
                now += FRESH_SECONDS
                asked.why_not(Stage.PREPARE)
                await until(lambda: asked.why_not(Stage.PREPARE) == "")
