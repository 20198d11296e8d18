"""Who of several controllers leads: a Lease, renewed; its `leaseTransitions` is the epoch.

A candidate never compares clocks with another: it takes the lease once it has seen it unchanged for
its whole duration by its own clock. A leader counts from before it sent its last renewal, and stops
earlier than others may take over; one that was paused therefore knows on waking, without asking,
that it leads no more. What it may have sent before is refused by the epoch (`claim_stage`).

Epochs begin with the minutes since 1970 and not with 1, so that they grow on also after somebody
has deleted the Lease, or brought back an old one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from controller_svc.k8s.api import LEASES, ClusterApi
from seal.errors import Conflict, NotFound, Retryable, Superseded
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """When a candidate looks, a leader renews, gives up, is given up: each sooner than the next.

    A controller that was killed is followed by another within `duration_seconds` + `look_seconds`.
    """

    look_seconds: float = 0.5
    """Between two looks of a candidate."""
    retry_seconds: float = 1.0
    """Between two renewals."""
    deadline_seconds: float = 3.0
    """Without a renewal for so long a leader stops."""
    duration_seconds: int = 4
    """Unchanged for so long, a lease is free."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class _Metadata(BaseModel):
    resource_version: str = Field(alias="resourceVersion")


class _Lease(BaseModel):
    metadata: _Metadata
    spec: _Spec = _Spec()


class Leadership:
    """One candidate. `identity` is unique per process: one that starts again is another."""

    def __init__(
        self,
        api: ClusterApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._times, self._clock, self._wall_clock, self._sleep = times, clock, wall_clock, sleep
        self._seen: _Lease | None = None
        self._seen_at = 0.0
        self._epoch: int | None = None
        self._renewed_at = 0.0

    @property
    def epoch(self) -> int | None:
        """Number of this leader's turn; None while it does not lead, or does not know it."""
        fresh = self._clock() < self._renewed_at + self._times.deadline_seconds
        return self._epoch if fresh else None

    async def acquire(self) -> int:
        """Wait until this candidate leads; its epoch."""
        while True:
            await self._attempt()
            if (epoch := self.epoch) is not None:
                return epoch
            await self._sleep(self._pause_seconds())

    def _pause_seconds(self) -> float:
        """Until a candidate's next look: no later than the lease runs out."""
        left, pause = self._left_seconds(), self._times.look_seconds
        return min(left, pause) if left > 0 else pause

    async def hold(self) -> None:
        """Renew for as long as this candidate leads.

        Raises:
            Superseded: it leads no more: another has taken over, or may have.

        """
        epoch = self.epoch
        # A request that hangs is waited for no longer than the turn may last without it
        with suppress(TimeoutError):
            while epoch is not None and self.epoch == epoch:
                ends_at = self._renewed_at + self._times.deadline_seconds
                async with asyncio.timeout(max(0.0, ends_at - self._clock())):
                    await self._sleep(self._times.retry_seconds)
                    await self._attempt()
        self._epoch = None
        raise Superseded(
            f"{self._identity} leads no more", remedy="stop at once, and stand for election again"
        )

    async def release(self) -> None:
        """Let the next one take over at once; told best, as the lease runs out anyway."""
        lease, epoch = self._seen, self._epoch
        self._epoch = None
        if lease is None or epoch is None:
            return
        try:
            await self._write(lease.spec.model_copy(update={"holder_identity": ""}), lease)
        except (Conflict, NotFound, Retryable) as error:
            log.info("lease not released", lease=self._name, cause=str(error))

    async def _attempt(self) -> None:
        """Take or renew the lease, unless another has it."""
        started_at = self._clock()
        try:
            lease = await self._look()
            spec = self._wanted(lease)
            if spec is None:
                self._epoch = None
                return
            written = await self._write(spec, lease)
        except (Conflict, NotFound, Retryable) as error:
            log.info("lease not written", lease=self._name, cause=str(error))
            return
        # From before the request: others count from when they saw it, which is later
        self._saw(written)
        self._epoch, self._renewed_at = written.spec.lease_transitions, started_at

    async def _look(self) -> _Lease | None:
        try:
            found = await self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            return None
        lease = _Lease.model_validate(found)
        self._saw(lease)
        return lease

    def _saw(self, lease: _Lease) -> None:
        version = lease.metadata.resource_version
        if self._seen is None or self._seen.metadata.resource_version != version:
            self._seen, self._seen_at = lease, self._clock()

    def _left_seconds(self) -> float:
        """Until the lease as it was seen last is free, if it does not change."""
        told = self._seen.spec.lease_duration_seconds if self._seen is not None else None
        return self._seen_at + (told or self._times.duration_seconds) - self._clock()

    def _wanted(self, lease: _Lease | None) -> _Spec | None:
        """The lease as this candidate would have it; None while it is another's.

        One that names this candidate is its own, also if the reply to its taking was lost.
        """
        now = datetime.fromtimestamp(self._wall_clock(), tz=UTC).isoformat(timespec="microseconds")
        now = now.replace("+00:00", "Z")
        if lease is not None and lease.spec.holder_identity == self._identity:
            return lease.spec.model_copy(update={"renew_time": now})
        transitions = int(self._wall_clock() // 60)
        if self._seen is not None:
            transitions = max(transitions, self._seen.spec.lease_transitions + 1)
        if lease is not None:
            if lease.spec.holder_identity and self._left_seconds() > 0:
                return None
            transitions = max(transitions, lease.spec.lease_transitions + 1)
        return _Spec(
            holder_identity=self._identity,
            lease_duration_seconds=self._times.duration_seconds,
            acquire_time=now,
            renew_time=now,
            lease_transitions=transitions,
        )

    async def _write(self, spec: _Spec, lease: _Lease | None) -> _Lease:
        metadata: Tree = {"name": self._name, "namespace": self._namespace}
        body: Tree = {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        if lease is None:
            return _Lease.model_validate(await self._api.create(LEASES, self._namespace, body))
        metadata["resourceVersion"] = lease.metadata.resource_version
        return _Lease.model_validate(await self._api.replace(LEASES, self._namespace, body))
