"""What all pieces of work of one shard share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import Meter
from controller_svc.worker.requests import Requests
from controller_svc.worker.settings import WorkerSettings
from seal.domains import get_domain
from seal.domains.base import Domain
from seal.runs.clock import ShardClock
from seal.runs.shards import ShardStore


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all pieces of work of one shard share."""

    requests: Requests
    clients: ServiceClients
    files: ShardStore
    clock: ShardClock
    meter: Meter
    settings: WorkerSettings
    places: asyncio.Semaphore = field(init=False)
    """One per piece of work that may be outstanding."""
    writers: asyncio.Semaphore = field(init=False)
    """One per call for edits that may be outstanding. They are apart: inner loops on the edits that
    are there do not wait for all the others to be written."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", asyncio.Semaphore(self.settings.concurrency))
        object.__setattr__(self, "writers", asyncio.Semaphore(self.settings.generate_concurrency))

    @property
    def domain(self) -> Domain:
        """The run's domain."""
        return get_domain(self.requests.spec.domain)
