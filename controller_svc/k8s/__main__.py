"""`python -m controller_svc.k8s`: the controller as a process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from functools import partial

import structlog
import uvloop

from controller_svc.k8s.api import KubernetesApi
from controller_svc.k8s.connect import connect, own_namespace, served_namespaces
from controller_svc.k8s.controller import Controller
from controller_svc.k8s.event_post import posting
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.health import serve_health
from controller_svc.k8s.leaders_api import LeadersApi
from controller_svc.k8s.leading import WorkHangs, lead_again_and_again
from controller_svc.k8s.lease import Leadership
from controller_svc.k8s.options import ControllerOptions
from controller_svc.k8s.services import ServiceHealth
from controller_svc.k8s.shared_reads import SharedReads
from controller_svc.k8s.source import watch
from controller_svc.k8s.story import Story
from controller_svc.k8s.turn import Turn
from controller_svc.tracking import Tracker
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound, error_class
from seal.metrics import metrics
from seal.rpc.lifecycle import Signals, stop_signals
from seal.serving import leave, run_process
from seal.telemetry import serving_metrics

log = structlog.get_logger(__name__)

LEASE_TIMEOUT_SECONDS = 1.5
"""Of a request for the lease: less than a turn lasts without one, more than a busy server takes."""


class Process:
    """What one process of the controller consists of."""

    def __init__(self, options: ControllerOptions) -> None:
        """Raises InvalidInput naming the option or the field of the settings file."""
        self._options, self.name = options, options.name
        self.namespaces = served_namespaces(options.namespaces)
        try:
            self._settings = options.jobs()
        except NotFound as error:
            raise InvalidInput(error.message, field="jobs_file") from error
        self._store = ArtifactStore(options.artifacts)
        self._turn: Turn | None = None

    def why_not_ready(self) -> str:
        """What is missing: a controller that does not lead has nothing to do, and is ready."""
        waits = self._turn is not None and not self._turn.ready.is_set()
        return "the objects have not all been seen" if waits else ""

    async def run(self, signals: Signals) -> None:
        """Stand for election and lead, until a signal.

        Raises:
            Transient: the store is away, or work hangs.
            SealError: the store or the lease cannot be used.

        """
        await asyncio.to_thread(self._store.check)
        async with (
            await connect() as client,
            ServiceHealth(self._settings.services) as services,
            posting(KubernetesApi(client)) as events,
        ):
            leadership = Leadership(
                KubernetesApi(client, timeout_seconds=LEASE_TIMEOUT_SECONDS),
                namespace=self._options.lease_namespace or own_namespace() or self.namespaces[0],
                name=self._options.lease_name,
                identity=self.name,
            )

            async def turn(epoch: int) -> None:
                gauges = ObjectGauges(metrics)
                api = LeadersApi(KubernetesApi(client), lambda: leadership.epoch == epoch)
                reads, tracker = SharedReads(api), Tracker(self._store)
                controller = Controller(
                    api=reads,
                    store=self._store,
                    settings=self._settings,
                    epoch=epoch,
                    story=Story(events, identity=self.name),
                    gauges=gauges,
                    services=services,
                    tracker=tracker,
                )
                self._turn = Turn(
                    controller,
                    watch=partial(watch, client=client),
                    namespaces=self.namespaces,
                    workers=self._options.workers,
                    reads=reads,
                )
                try:
                    await self._turn.run()
                finally:
                    self._turn = None
                    tracker.stop()
                    gauges.clear()

            try:
                await _until_signal(lead_again_and_again(leadership, turn), signals)
            except WorkHangs as error:
                log.error("ending at once", cause=str(error))
                leave(error_class(error).exit_code)
            await leadership.release()


async def _until_signal(work: Awaitable[None], signals: Signals) -> None:
    """Do the work; a signal ends it."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.create_task(signals.get())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopped.cancel()
        working.result()
    log.info("stopping", signal=stopped.result().name)
    working.cancel()
    await asyncio.wait({working})


async def serve(options: ControllerOptions) -> None:
    """The controller, from its start to its end."""
    process = Process(options)
    # What was imported stays: a collection that walked all of it would stop the loop for 0.2 s
    gc.collect()
    gc.freeze()
    host = options.http_host
    with serving_metrics(options.metrics_port, host=host):
        async with (
            stop_signals() as signals,
            serve_health(process.why_not_ready, port=options.health_port, host=host) as port,
        ):
            log.info("controller started", identity=process.name, health_port=port)
            await process.run(signals)


if __name__ == "__main__":
    run_process(ControllerOptions, serve, loop_factory=uvloop.new_event_loop)
