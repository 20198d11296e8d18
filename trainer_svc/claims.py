"""Which of several trainers on one artifact store does a training: a claim that its owner renews.

A retry may reach another replica than the request did. So that it is trained once, whoever begins
creates `{run}/claims/{id}-1.json` and renews it while it works, with its progress. The others
follow: they show that progress and wait for the result. Who sees a claim that has not been renewed
for the lease (by its own clock: clocks of two machines need not agree) creates `-2` and trains
itself; of several one creates it. An owner that was only paused ends too: results are created once,
so one counts. A claim is given up when its training ends, well or not.

A cancel that reaches a replica which does not do the training leaves a mark, which the owner sees
when it renews. It stays until there is a result: where the owner fails before it has looked, who is
asked next finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from seal.errors import SealError
from seal.records import Record
from seal.v1 import trainer_pb2
from trainer_svc.training import Training, check_same_body

if TYPE_CHECKING:
    from seal.artifacts import ArtifactStore

log = structlog.get_logger(__name__)

LEASE_SECONDS = 20.0
"""An owner that does not renew its claim for so long is taken for dead."""
RENEWALS_PER_LEASE = 5
"""So many renewals may fail before that."""
LONGEST_LOOK_SECONDS = 1.0
"""Longest time between two looks of a follower."""


class Claim(Record):
    """Who does a training, and how far it is."""

    owner: str
    """Id of the owner's life: a restarted process is another one."""
    body_sha256: str
    """Digest of the request."""
    renewed: int
    """Number of the renewal: it changes, or the owner is gone."""
    state: int
    """`TaskState` of the wire."""
    step: int
    total_steps: int
    loss: float
    eta_seconds: float
    resumed_step: int

    @property
    def progress(self) -> trainer_pb2.TrainingProgress:
        """Progress as its owner saw it last."""
        return trainer_pb2.TrainingProgress(
            state=self.state,  # type: ignore[arg-type]
            step=self.step,
            total_steps=self.total_steps,
            loss=self.loss,
            eta_seconds=self.eta_seconds,
            resumed_step=self.resumed_step,
        )


class Claims:
    """The claims of one trainer."""

    def __init__(self, store: ArtifactStore, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._store, self._lease_seconds = store, lease_seconds
        self._owner = uuid.uuid4().hex

    async def take(self, training: Training, number: int) -> bool:
        """Create the claim of this number; False if another trainer has it."""
        own = self._claim(training, 0)
        plan = training.plan
        path = _claim_path(plan.run, plan.request_id, number)
        counted = await asyncio.to_thread(self._store.create_json, path, own)
        return counted.owner == self._owner

    @asynccontextmanager
    async def held(self, training: Training, number: int) -> AsyncIterator[None]:
        """Renew a claim that was taken for the length of the block, then give it up.

        A cancel that was asked for elsewhere stops the training, and is over once the block ends
        with a result.
        """
        plan = training.plan
        if await asyncio.to_thread(self._store.exists, _cancel_path(plan.run, plan.request_id)):
            training.stop()
        over, has_result = asyncio.Event(), False
        renewing = asyncio.create_task(self._renew(training, number, over))
        try:
            yield
            has_result = True
        finally:
            over.set()
            await renewing  # a renewal under way must not bring back what is given up
            await asyncio.to_thread(self._give_up, training, number, has_result)

    async def follow(self, training: Training, number: int) -> int:
        """Wait while another trainer does it, and show its progress.

        Gives the number of the claim to try next: the result may be there, the owner has given up,
        or has not renewed it for the lease.
        """
        seen, since = -1, time.monotonic()
        training.following = True
        log.info("training followed", run=training.plan.run, request_id=training.plan.request_id)
        try:
            while True:
                claim = await asyncio.to_thread(self._read, training, number)
                if claim is None:
                    return 1
                check_same_body(training.plan, claim.body_sha256)
                training.progress.set(claim.progress)
                if claim.renewed != seen:
                    seen, since = claim.renewed, time.monotonic()
                elif time.monotonic() - since >= self._lease_seconds:
                    return number + 1
                await asyncio.sleep(min(LONGEST_LOOK_SECONDS, self._lease_seconds / 10))
        finally:
            training.following = False

    def find(self, run: str, request_id: str) -> Claim | None:
        """The newest claim on a training; blocks on the store."""
        found: Claim | None = None
        number = 1
        while (
            claim := self._store.find_json(_claim_path(run, request_id, number), Claim)
        ) is not None:
            found, number = claim, number + 1
        return found

    def ask_to_cancel(self, run: str, request_id: str) -> None:
        """Leave a mark for the owner; blocks on the store."""
        self._store.create_bytes(_cancel_path(run, request_id), b"cancel\n")

    def withdraw_cancel(self, run: str, request_id: str) -> None:
        """Remove the mark: the training has ended; blocks on the store."""
        self._store.remove(_cancel_path(run, request_id))

    async def _renew(self, training: Training, number: int, over: asyncio.Event) -> None:
        """Renew until it is over; a store that is away costs the claim at worst."""
        renewed = 0
        while True:
            try:
                async with asyncio.timeout(self._lease_seconds / RENEWALS_PER_LEASE):
                    await over.wait()
                return
            except TimeoutError:
                renewed += 1
            try:
                cancel = await asyncio.to_thread(self._write, training, number, renewed)
            except (SealError, OSError) as error:
                log.warning(
                    "claim not renewed", request_id=training.plan.request_id, reason=str(error)
                )
                continue
            if cancel:
                training.stop()

    def _write(self, training: Training, number: int, renewed: int) -> bool:
        """Renew a claim; True if somebody has asked to cancel the training."""
        plan = training.plan
        path = _claim_path(plan.run, plan.request_id, number)
        self._store.write_json(path, self._claim(training, renewed))
        return self._store.exists(_cancel_path(plan.run, plan.request_id))

    def _give_up(self, training: Training, number: int, has_result: bool) -> None:
        plan = training.plan
        try:
            if self._read(training, number + 1) is not None:
                return  # taken over meanwhile: a gap would hide the owner of today
            for past in range(1, number + 1):
                self._store.remove(_claim_path(plan.run, plan.request_id, past))
            if has_result:
                self.withdraw_cancel(plan.run, plan.request_id)
        except (SealError, OSError) as error:
            log.warning("claim not given up", request_id=plan.request_id, reason=str(error))

    def _read(self, training: Training, number: int) -> Claim | None:
        plan = training.plan
        return self._store.find_json(_claim_path(plan.run, plan.request_id, number), Claim)

    def _claim(self, training: Training, renewed: int) -> Claim:
        progress = training.progress.value
        return Claim(
            owner=self._owner,
            body_sha256=training.plan.body_sha256,
            renewed=renewed,
            state=progress.state,
            step=progress.step,
            total_steps=progress.total_steps,
            loss=progress.loss,
            eta_seconds=progress.eta_seconds,
            resumed_step=progress.resumed_step,
        )


def _claim_path(run: str, request_id: str, number: int) -> str:
    return f"{run}/claims/{_digest(request_id)}-{number}.json"


def _cancel_path(run: str, request_id: str) -> str:
    return f"{run}/claims/{_digest(request_id)}.cancel"


def _digest(request_id: str) -> str:
    """An id is a caller's text and never becomes a path itself."""
    return hashlib.sha256(request_id.encode()).hexdigest()
