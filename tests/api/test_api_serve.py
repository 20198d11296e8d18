"""Everything in one process: four services behind one address."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_services import ENGINE
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tiny_model import save_tiny_model

from controller_svc.api.serve import serve
from seal.errors import Conflict, NotFound
from seal.rpc.client import open_channel, rpc_errors
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc, common_pb2, trainer_pb2, trainer_pb2_grpc

SERVICES = ("GeneratorService", "TrainerService", "EvaluatorService", "AdaptationService")


async def test_one_address_serves_all_four_services_and_a_second_process_is_refused(
    tmp_path: Path,
) -> None:
    model = str(save_tiny_model(tmp_path / "model"))
    root = tmp_path / "store"
    async with serve(model, root=root, engine=ENGINE, address="localhost:0") as address:
        async with open_channel(address) as channel:
            for service in ("", *(f"seal.v1.{name}" for name in SERVICES)):
                state = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=service)
                )
                assert state.status == health_pb2.HealthCheckResponse.SERVING, service
            described = await trainer_pb2_grpc.TrainerServiceStub(channel).DescribeModel(
                trainer_pb2.DescribeModelRequest(policy=common_pb2.PolicyRef(base_model=model))
            )
            assert described.base_model == model
            front = adaptation_pb2_grpc.AdaptationServiceStub(channel)
            with pytest.raises(NotFound), rpc_errors():
                await front.GetAdaptation(adaptation_pb2.GetAdaptationRequest(name="none"))
        with pytest.raises(Conflict):
            async with serve(model, root=root, engine=ENGINE, address="localhost:0"):
                raise AssertionError("two processes would do the same work")
