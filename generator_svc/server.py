"""Puts the generator on a gRPC server.

Three services on one server share engine, store and adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from generator_svc.plan import GenerationLimits
from generator_svc.service import GeneratorService
from seal.adapters import AdapterCache
from seal.rpc.engine_calls import Pace
from seal.v1 import generator_pb2, generator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.artifacts import ArtifactStore
    from seal.engine import Engine

SERVICE_NAME = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name


def register(
    server: grpc.aio.Server,
    *,
    engine: Engine,
    store: ArtifactStore,
    adapters: AdapterCache | None = None,
    limits: GenerationLimits | None = None,
    pace: Pace | None = None,
) -> str:
    """Add GeneratorService to `server`; returns its full name for the health service.

    Give `adapters` to share one cache between services.
    """
    adapters = adapters or AdapterCache(store, base_model=engine.name)
    service = GeneratorService(
        engine=engine, adapters=adapters, limits=limits or GenerationLimits(), pace=pace or Pace()
    )
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(service, server)
    return SERVICE_NAME
