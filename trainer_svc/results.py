"""The results of ended trainings in the artifact store, by request id; each is created once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from seal.engine import Adapter, TrainingResult
from seal.errors import Internal, NotFound
from seal.records import AdapterReference, Record, TrainingRecord
from seal.rpc.convert import finite_or_zero
from trainer_svc.card import adapter_card
from trainer_svc.checkpoints import discard_checkpoint
from trainer_svc.plan import TrainingPlan, result_path
from trainer_svc.publish import publish_adapter
from trainer_svc.training import check_same_body

if TYPE_CHECKING:
    from seal.artifacts import ArtifactStore

log = structlog.get_logger(__name__)

UNSTORED_ADAPTERS = 64
"""Trained adapters kept in memory because they could not be stored; the oldest leave first and
would be trained again."""


class StoredTraining(Record):
    """An ended training as it is kept for retries."""

    request_id: str
    """Idempotency key."""
    body_sha256: str
    """Digest of the request that it belongs to."""
    result: TrainingRecord
    """How it ended."""


class Results:
    """What one service has trained. All methods but `unstored` block on the store."""

    def __init__(self, store: ArtifactStore, save_adapter: Callable[[Adapter, Path], None]) -> None:
        self._store, self._save_adapter = store, save_adapter
        self._unstored: OrderedDict[tuple[str, str], tuple[str, TrainingResult]] = OrderedDict()

    def find(self, run: str, request_id: str) -> StoredTraining | None:
        """The ended training of a request id, if there is one."""
        return self._store.find_json(result_path(run, request_id), StoredTraining)

    def earlier(self, plan: TrainingPlan) -> TrainingRecord | None:
        """Result of an earlier life of this request.

        None if there is none, or its adapter has been deleted or damaged since: what was trained
        can be trained again. Raises Conflict if it belongs to another body.
        """
        stored = self.find(plan.run, plan.request_id)
        if stored is None:
            return None
        check_same_body(plan, stored.body_sha256)
        adapter = stored.result.adapter
        if adapter is not None and not self._intact(plan, adapter):
            self._store.remove(plan.result_path)
            return None
        discard_checkpoint(self._store, plan)
        return stored.result

    def _intact(self, plan: TrainingPlan, adapter: AdapterReference) -> bool:
        """Whether a stored adapter is what was published; what is left of it is deleted if not."""
        try:
            with self._store.fetch_directory(adapter):
                return True
        except (NotFound, Internal) as error:
            log.warning(
                "stored adapter is gone or damaged, training again",
                run=plan.run,
                request_id=plan.request_id,
                adapter=adapter.sha256,
                reason=error.message,
            )
            self._store.remove_directory(adapter)
            return False

    def unstored(self, plan: TrainingPlan) -> TrainingResult | None:
        """What was trained for this request, but could not be stored."""
        body, trained = self._unstored.get((plan.run, plan.request_id), ("", None))
        return trained if body == plan.body_sha256 else None

    def keep(self, plan: TrainingPlan, trained: TrainingResult) -> TrainingRecord:
        """Publish the adapter, then the result; gives the result that counts.

        Another trainer may have been first. What cannot be stored stays in memory for a retry.
        """
        key = (plan.run, plan.request_id)
        self._unstored[key] = (plan.body_sha256, trained)
        while len(self._unstored) > UNSTORED_ADAPTERS:
            self._unstored.popitem(last=False)
        record = TrainingRecord(
            outcome=trained.outcome,
            adapter=self._publish(plan, trained),
            steps=trained.steps,
            final_loss=finite_or_zero(trained.final_loss),
            tokens=trained.tokens,
            seconds=trained.seconds,
            engine_seconds=trained.engine_seconds,
        )
        own = StoredTraining(
            request_id=plan.request_id, body_sha256=plan.body_sha256, result=record
        )
        counted = self._store.create_json(plan.result_path, own)
        self._unstored.pop(key, None)
        discard_checkpoint(self._store, plan)
        check_same_body(plan, counted.body_sha256)
        return counted.result

    def _publish(self, plan: TrainingPlan, trained: TrainingResult) -> AdapterReference | None:
        if trained.adapter is None:
            return None
        card = adapter_card(trained.adapter, plan, steps=trained.steps)
        return publish_adapter(
            self._store, plan.run, trained.adapter, self._save_adapter, card=card
        )
