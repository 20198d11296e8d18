"""Puts the trainer on a gRPC server.

Three services on one server share engine, store and adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seal.adapters import AdapterCache
from seal.rpc.engine_calls import Pace
from seal.v1 import trainer_pb2, trainer_pb2_grpc
from trainer_svc.plan import TrainingLimits
from trainer_svc.service import TrainerService
from trainer_svc.trainings import Trainings

if TYPE_CHECKING:
    import grpc

    from seal.artifacts import ArtifactStore
    from seal.engine import Engine

SERVICE_NAME = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name


def register(
    server: grpc.aio.Server,
    *,
    engine: Engine,
    store: ArtifactStore,
    adapters: AdapterCache | None = None,
    trainings: Trainings | None = None,
    limits: TrainingLimits | None = None,
    pace: Pace | None = None,
) -> str:
    """Add TrainerService to `server`; returns its full name for the health service.

    Give `trainings` to drain them at shutdown (`await trainings.close(grace_seconds=...)` after the
    server has stopped), and `adapters` to share one cache between services.
    """
    adapters = adapters or AdapterCache(store, base_model=engine.name)
    trainings = trainings or Trainings(engine=engine, store=store, adapters=adapters)
    service = TrainerService(
        trainings=trainings,
        adapters=adapters,
        limits=limits or TrainingLimits(),
        pace=pace or Pace(),
    )
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(service, server)
    return SERVICE_NAME
