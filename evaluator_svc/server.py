"""Puts the evaluator on a gRPC server.

Three services on one server share engine, store and adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator_svc.plan import EvaluationLimits
from evaluator_svc.service import EvaluatorService
from seal.adapters import AdapterCache
from seal.rpc.engine_calls import Pace
from seal.v1 import evaluator_pb2, evaluator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.artifacts import ArtifactStore
    from seal.engine import Engine

SERVICE_NAME = evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name


def register(
    server: grpc.aio.Server,
    *,
    engine: Engine,
    store: ArtifactStore,
    adapters: AdapterCache | None = None,
    limits: EvaluationLimits | None = None,
    pace: Pace | None = None,
) -> str:
    """Add EvaluatorService to `server`; returns its full name for the health service.

    Give `adapters` to share one cache between services.
    """
    adapters = adapters or AdapterCache(store, base_model=engine.name)
    service = EvaluatorService(
        engine=engine, adapters=adapters, limits=limits or EvaluationLimits(), pace=pace or Pace()
    )
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(service, server)
    return SERVICE_NAME
