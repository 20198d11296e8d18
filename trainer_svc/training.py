"""One accepted training, and what it says of itself."""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from seal.engine import Checkpoints, TaskState, TrainingProgress, TrainingResult
from seal.errors import Conflict, Transient
from seal.records import TrainingRecord
from seal.rpc.convert import finite_or_zero
from seal.rpc.engine_calls import Newest
from seal.rpc.line import EngineTask
from seal.v1 import common_pb2, trainer_pb2

if TYPE_CHECKING:
    from trainer_svc.plan import TrainingPlan

_STATES = MappingProxyType(
    {
        TaskState.QUEUED: common_pb2.TASK_STATE_QUEUED,
        TaskState.RUNNING: common_pb2.TASK_STATE_RUNNING,
        TaskState.DONE: common_pb2.TASK_STATE_DONE,
    }
)


class Training:
    """One accepted training."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.progress = Newest(trainer_pb2.TrainingProgress(state=common_pb2.TASK_STATE_QUEUED))
        self.cancel_requested = False
        self.engine_task: EngineTask[TrainingResult] | None = None
        """Once it has a place in the engine's queue."""
        self.waiting: asyncio.Task[TrainingResult] | None = None
        """Its time in the line and in the engine."""
        self.give_up_at = float("-inf")
        """Monotonic time until which a caller waits for a place in the engine's queue."""
        self.checkpoints: Checkpoints | None = None
        self.following = False
        """Another trainer does it; this one waits for its result."""
        self.task: asyncio.Task[TrainingRecord]
        """Its whole life; read it with `result`, never await it directly: a caller that leaves must
        not end it."""

    def wait_until(self, seconds: float | None) -> None:
        """One more caller, who can wait so long (None: for ever) for a place in the queue."""
        caller_gives_up_at = float("inf") if seconds is None else time.monotonic() + seconds
        self.give_up_at = max(self.give_up_at, caller_gives_up_at)

    def time_left(self) -> float | None:
        """Seconds until no caller waits any more; None: for ever."""
        left = self.give_up_at - time.monotonic()
        return None if left == float("inf") else left

    def stop(self) -> None:
        """Have it end as cancelled, wherever it is."""
        self.cancel_requested = True
        if self.engine_task is not None:
            self.engine_task.cancel()
        elif self.waiting is not None:
            self.waiting.cancel()

    async def result(self) -> TrainingRecord:
        """Wait for the end. Raises what ended it, or Transient if the service is shutting down."""
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():
                raise Transient(
                    "the trainer is shutting down", remedy="send the same request again"
                ) from None
            raise


def progress_message(progress: TrainingProgress) -> trainer_pb2.TrainingProgress:
    """Progress to the wire."""
    return trainer_pb2.TrainingProgress(
        state=_STATES[progress.state],
        step=progress.step,
        total_steps=progress.total_steps,
        loss=finite_or_zero(progress.loss),
        eta_seconds=finite_or_zero(progress.eta_seconds),
        resumed_step=progress.resumed_step,
    )


def check_same_body(plan: TrainingPlan, body_sha256: str) -> None:
    """Raise Conflict if the request_id of a plan belongs to another body."""
    if plan.body_sha256 != body_sha256:
        raise Conflict(
            f"request_id {plan.request_id!r} of run {plan.run!r} belongs to another training",
            field="request_id",
            remedy="give a changed request a new request_id",
        )
