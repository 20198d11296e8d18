"""An address answers before its service can: it lives, it is not ready, and callers try again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_harness import read_all

from seal.errors import InvalidInput, Transient
from seal.rpc.client import open_channel, rpc_errors
from seal.rpc.not_ready import not_ready
from seal.rpc.server import start_server
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


@pytest.mark.parametrize("kind", ["unix", "port"])
async def test_the_process_lives_its_service_does_not_serve_and_calls_are_told_to_come_back(
    tmp_path: Path, kind: str
) -> None:
    wanted = f"unix:{tmp_path / 's'}" if kind == "unix" else "127.0.0.1:0"
    async with (
        not_ready(wanted, why="the model is not there") as address,
        open_channel(address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service, status in (("", SERVING), ("seal.v1.TrainerService", NOT_SERVING)):
            request = health_pb2.HealthCheckRequest(service=service)
            assert (await health.Check(request, timeout=5)).status == status
            watch = health.Watch(request, timeout=5)
            assert (await watch.read()).status == status
            watch.cancel()
        trainer = trainer_pb2_grpc.TrainerServiceStub(channel)
        described = trainer_pb2.DescribeModelRequest(policy=common_pb2.PolicyRef())
        with pytest.raises(Transient, match="the model is not there") as unary, rpc_errors():
            await trainer.DescribeModel(described, timeout=5)
        assert unary.value.retry_after_seconds == 2.0
        call = trainer.TrainAdapter(trainer_pb2.TrainAdapterRequest(), timeout=5)
        with pytest.raises(Transient, match="the model is not there"):
            await read_all(call)
    server = await start_server([], address=address)
    assert server.address == address, "the real server takes its place"
    await server.stop(0.0)


async def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    server = await start_server([], address="127.0.0.1:0")
    with pytest.raises(InvalidInput, match="in use"):
        await not_ready(server.address, why="").__aenter__()
    await server.stop(0.0)
