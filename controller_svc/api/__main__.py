"""`python -m controller_svc.api`: the front door as a process, over services elsewhere."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from controller_svc.api.service import register
from controller_svc.local.adaptations import AdaptationSettings, local_adaptations
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.options import HOW_IT_ENDS, ServerOptions
from seal.rpc.lifecycle import Serving, serve_until_signal, stop_signals
from seal.rpc.server import check_address
from seal.rpc.settings import ServerSettings
from seal.serving import STOPPED_AT_ONCE, leave, run_process
from seal.telemetry import start_metrics_server


class FrontDoorOptions(ServerOptions):
    """Turn documents into adapters, through services that run elsewhere.

    The gRPC service seal.v1.AdaptationService. Its adaptations are objects in the artifact store
    that it shares with the services, and one process at a time has them. What has not ended when it
    stops is taken up by the next start.
    """

    program: ClassVar[str] = "python -m controller_svc.api"
    ends: ClassVar[str] = HOW_IT_ENDS
    address: str = "127.0.0.1:50050"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_port: int = Field(default=9100, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    model: str = "smollm2-135m"
    """Base model, as the services name it."""
    generator: str = "127.0.0.1:50051"
    """Address of the GeneratorService."""
    trainer: str = "127.0.0.1:50052"
    """Address of the TrainerService; a name with many addresses behind it is as many trainers."""
    evaluator: str = "127.0.0.1:50053"
    """Address of the EvaluatorService."""
    max_running: int = Field(default=16, ge=1, le=4096)
    """Adaptations at work at once; more wait for their turn."""


async def _serve(options: FrontDoorOptions) -> None:
    check_address(options.address)
    store = ArtifactStore(options.artifacts)
    store.check()
    metrics = (
        start_metrics_server(options.metrics_port, host=options.metrics_host)
        if options.metrics_port
        else None
    )
    services = ServiceAddresses(
        generator=options.generator, trainer=options.trainer, evaluator=options.evaluator
    )
    settings = AdaptationSettings(max_running=options.max_running)
    try:
        async with (
            stop_signals() as signals,
            local_adaptations(
                store, model=options.model, services=services, settings=settings
            ) as adaptations,
        ):
            in_order = await serve_until_signal(
                Serving(
                    partial(register, adaptations=adaptations, store=store),
                    suspend=adaptations.suspend,
                ),
                address=options.address,
                signals=signals,
                settings=options.part(ServerSettings),
                grace_seconds=options.grace_seconds,
            )
            if not in_order:
                leave(STOPPED_AT_ONCE)
    finally:
        if metrics is not None:
            metrics.stop()


if __name__ == "__main__":
    run_process(FrontDoorOptions, _serve)
