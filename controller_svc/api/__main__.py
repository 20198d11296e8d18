"""`python -m controller_svc.api`: the front door as a process, over services elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from controller_svc.adaptations import Adaptations
from controller_svc.api.service import register
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.options import HOW_IT_ENDS, ServerOptions
from seal.rpc.lifecycle import Serving, Signals, serve_until_signal, stop_signals
from seal.rpc.server import check_address
from seal.rpc.settings import ServerSettings
from seal.serving import STOPPED_AT_ONCE, leave, run_process
from seal.telemetry import serving_metrics


class FrontDoorOptions(ServerOptions):
    """Turn documents into adapters, through services that run elsewhere.

    The gRPC service seal.v1.AdaptationService. With --world local its adaptations are objects in
    the artifact store that it shares with the services, and one process at a time has them; what
    has not ended when it stops is taken up by the next start. With --world cluster they are
    Adaptation objects of a Kubernetes cluster, on which the controller works; any number of
    replicas serve them.
    """

    program: ClassVar[str] = "python -m controller_svc.api"
    ends: ClassVar[str] = HOW_IT_ENDS
    address: str = "127.0.0.1:50050"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_port: int = Field(default=9100, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    model: str = "smollm2-135m"
    """Base model, as the services name it."""
    profile: Literal["embedded", "published"] = "embedded"
    """Where the fields of an adaptation come from that a request leaves out; `published` is for a
    model of 7B."""
    world: Literal["local", "cluster"] = "local"
    """Who works on the adaptations: this process, or a cluster's controller."""
    namespaces: str = ""
    """With --world cluster: namespaces that are served, with commas between them. Empty: that of
    this pod."""
    adaptations_file: str = ""
    """With --world cluster: YAML file of what each adaptation that is submitted gets beside its
    spec, which no caller may say: jobTemplate, queueName, ttlSecondsAfterFinished, publish. Empty:
    nothing."""
    stored_bytes: int = Field(default=10 * 1024**3, ge=0)
    """Bytes of the documents and questions in the artifact store together; what would be more is
    refused. Each replica counts what the others store within a minute. 0 for any number. The
    default is half of the volume that the chart asks for."""
    generator: str = "127.0.0.1:50051"
    """With --world local: address of the GeneratorService."""
    trainer: str = "127.0.0.1:50052"
    """With --world local: address of the TrainerService; a name with many addresses behind it is as
    many trainers."""
    evaluator: str = "127.0.0.1:50053"
    """With --world local: address of the EvaluatorService."""
    max_running: int = Field(default=16, ge=1, le=4096)
    """With --world local: adaptations at work at once; more wait for their turn."""


async def _serve(options: FrontDoorOptions) -> None:
    check_address(options.address)
    store = ArtifactStore(options.artifacts)
    store.check()
    serve = _on_a_cluster if options.world == "cluster" else _here
    with serving_metrics(options.metrics_port, host=options.metrics_host):
        async with stop_signals() as signals:
            if not await serve(options, store, signals):
                leave(STOPPED_AT_ONCE)


async def _here(options: FrontDoorOptions, store: ArtifactStore, signals: Signals) -> bool:
    """Serve adaptations that this process works on; False if it was stopped at once."""
    from controller_svc.local.adaptations import AdaptationSettings, local_adaptations

    services = ServiceAddresses(
        generator=options.generator, trainer=options.trainer, evaluator=options.evaluator
    )
    settings = AdaptationSettings(profile=options.profile, max_running=options.max_running)
    async with local_adaptations(
        store, model=options.model, services=services, settings=settings
    ) as adaptations:
        return await _until_signal(
            options, store, signals, adaptations, suspend=adaptations.suspend
        )


async def _on_a_cluster(options: FrontDoorOptions, store: ArtifactStore, signals: Signals) -> bool:
    """Serve the adaptations of a cluster; False if it was stopped at once."""
    from controller_svc.k8s.connect import served_namespaces
    from controller_svc.k8s.front.front_door import cluster_front_door, read_cluster_settings

    namespaces = served_namespaces(options.namespaces)
    cluster = read_cluster_settings(options.adaptations_file)
    async with cluster_front_door(
        store,
        model=options.model,
        profile=options.profile,
        namespaces=namespaces,
        cluster=cluster,
    ) as door:
        listed = asyncio.create_task(door.ready.wait())
        stopped = asyncio.create_task(signals.get())
        await asyncio.wait({listed, stopped, door.watching}, return_when=asyncio.FIRST_COMPLETED)
        listed.cancel()
        if stopped.done():
            return True  # nobody was served yet
        stopped.cancel()
        return await _until_signal(
            options,
            store,
            signals,
            door.adaptations,
            suspend=door.adaptations.suspend,
            broken=door.broken,
        )


async def _until_signal(
    options: FrontDoorOptions,
    store: ArtifactStore,
    signals: Signals,
    adaptations: Adaptations,
    *,
    suspend: Callable[[], None],
    broken: Callable[[], str | None] = lambda: None,
) -> bool:
    registration = partial(
        register, adaptations=adaptations, store=store, stored_bytes=options.stored_bytes
    )
    return await serve_until_signal(
        Serving(registration, suspend=suspend),
        address=options.address,
        signals=signals,
        settings=options.part(ServerSettings),
        grace_seconds=options.grace_seconds,
        broken=broken,
    )


if __name__ == "__main__":
    run_process(FrontDoorOptions, _serve)
