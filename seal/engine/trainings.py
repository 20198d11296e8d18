"""The trainings that hold a slot: who joins which batch, whose turn it is, who leaves.

Trainings of one shape on one policy share a batch. Another shape waits for a while until the batch
is empty, since one batch is faster than two; then it gets a batch of its own beside it, if memory
allows, and the batches take turns. Each keeps its state in its own slots, so that a turn costs
nothing and changes no bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from seal.engine.budget import MemoryBudget
from seal.engine.checkpointing import JobCheckpoints, Suspended
from seal.engine.faults import attempt, blame
from seal.engine.meters import begun
from seal.engine.model import FrozenModel
from seal.engine.queues import EngineTask, FairQueue
from seal.engine.requests import TrainingRequest, TrainingResult
from seal.engine.training import TrainingBatch
from seal.errors import SealError
from seal.metrics import metrics
from seal.outcomes import Outcome
from seal.settings import EngineSettings

log = structlog.get_logger(__name__)

MAX_TRAINING_WAIT_SECONDS = 60.0
"""Once the next training in turn waited this long for a batch of its shape, it gets one of its
own."""
MAX_BATCHES = 4
"""Batches side by side; a further shape waits until one is empty."""
TRAINING_TURN_SECONDS = 5.0
"""How long one of several batches trains before the next has its turn."""


@dataclass(eq=False)
class TrainingTask(EngineTask[TrainingResult]):
    """A training in the engine; its `job` is a `TrainingJob`."""

    checkpoints: JobCheckpoints | None = None


class Trainings:
    """The batches of one engine. Not thread-safe: the engine's thread owns them."""

    def __init__(
        self,
        model: FrozenModel,
        settings: EngineSettings,
        budget: MemoryBudget,
        *,
        alive: Callable[[], None],
    ) -> None:
        """`alive` is called after every pass, and between trainings whose steps fail."""
        self._model, self._settings, self._budget, self._alive = model, settings, budget, alive
        self._batches: dict[TrainingBatch, int] = {}
        """Batch -> the most slots that it may have; the first is the one whose turn it is."""
        self._tasks: dict[int, TrainingTask] = {}
        """id(job) -> task of the trainings that hold a slot."""
        self._turn_began = time.monotonic()

    def __len__(self) -> int:
        """Trainings that hold a slot."""
        return len(self._tasks)

    @property
    def batches(self) -> list[TrainingBatch]:
        """Batches side by side, the one whose turn it is first."""
        return list(self._batches)

    @property
    def held_bytes(self) -> int:
        """What the batches hold from step to step."""
        return sum(batch.held_bytes for batch in self._batches)

    def admit(self, queue: FairQueue[TrainingTask]) -> None:
        """Fill free slots with waiting trainings; give the next in turn a batch if none fits it."""
        head = next(iter(queue), None)
        if head is None:
            return
        if not any(batch.fits(head.request) for batch in self._batches):
            for batch in [batch for batch in self._batches if not batch.jobs]:
                del self._batches[batch]  # the old memory goes before the next is made
            waited = time.monotonic() - head.queued_at
            overdue = not self._batches or waited > MAX_TRAINING_WAIT_SECONDS
            if overdue and not self._open(head, queue):
                return  # nothing joins: the batches run empty
        for batch in list(self._batches):
            self._fill(batch, queue)

    def step(self, *, held_elsewhere_bytes: int = 0) -> None:
        """One optimiser step of the batch whose turn it is."""
        batch = self._in_turn()
        if batch is None:
            return
        batch.activation_bytes = self._budget.activation_bytes(
            self.held_bytes + held_elsewhere_bytes
        )
        jobs = list(batch.jobs.values())
        before = {slot: job.step for slot, job in batch.jobs.items()}
        tokens = sum(job.tokens for job in jobs)
        metrics.training_steps.inc(len(before))
        if attempt(batch.advance, self._model.device) is not None:
            self._advance_apart(batch, before)
        metrics.trained_tokens.inc(sum(job.tokens for job in jobs) - tokens)
        for job in list(batch.jobs.values()):  # in the order in which they joined
            if job.outcome is not Outcome.DIVERGED:
                self._tasks[id(job)].tell(job.progress())
        for job, result in batch.take_ended():
            self._tasks.pop(id(job)).succeed(result)
        self._keep_checkpoints(batch)
        if not batch.jobs and len(self._batches) > 1:
            del self._batches[batch]

    def drop_unwanted(self) -> None:
        """Take trainings for which nobody waits out of their slots."""
        for batch in self._batches:
            for slot, job in list(batch.jobs.items()):
                if self._tasks[id(job)].unwanted:
                    batch.remove(slot)
                    self._tasks.pop(id(job)).succeed(job.result(Outcome.CANCELLED, None))

    def _in_turn(self) -> TrainingBatch | None:
        now = time.monotonic()
        if now - self._turn_began >= TRAINING_TURN_SECONDS and self._batches:
            first = next(iter(self._batches))
            self._batches[first] = self._batches.pop(first)
            self._turn_began = now
        return next((batch for batch in self._batches if batch.jobs), None)

    def _advance_apart(self, batch: TrainingBatch, before: dict[int, int]) -> None:
        """Do a step that failed in company again, each training by itself.

        Gradients may have been half formed, but weights and moments change only once all are: every
        slot is as it was before the step, or has done it.
        """
        for slot, step in before.items():
            if batch.jobs[slot].step > step:
                continue
            self._alive()
            alone = attempt(lambda: batch.advance([slot]), self._model.device)  # noqa: B023 - called at once
            if alone is not None:
                self._tasks.pop(id(batch.remove(slot))).fail(blame(alone, work="train"))

    def _keep_checkpoints(self, batch: TrainingBatch) -> None:
        """Between steps: copy the trainings that are due.

        A suspended one leaves its slot with that copy.
        """
        for slot, job in list(batch.jobs.items()):
            checkpoints = self._tasks[id(job)].checkpoints
            if checkpoints is None:
                continue
            suspended = checkpoints.after_step(job, batch.state(slot))
            if suspended is not None:
                batch.remove(slot)
                self._tasks.pop(id(job)).fail(suspended)

    def _open(self, head: TrainingTask, queue: FairQueue[TrainingTask]) -> bool:
        """Make a batch for a training; False if it has to wait, or no batch can be made for it."""
        request = head.request
        slots = self._budget.largest_slots(request.lora, request.policy, self.held_bytes)
        if self._batches and (len(self._batches) >= MAX_BATCHES or not slots):
            return False
        most = max(1, slots)
        alike = sum(
            task.request.policy is request.policy and task.request.lora == request.lora
            for task in queue
        )
        error: Exception | None = None
        for wanted in (min(most, max(1, alike)), 1):
            error = attempt(
                lambda: self._batches.setdefault(self._new_batch(request, wanted), most),  # noqa: B023 - called at once
                self._model.device,
            )
            if error is None:
                return True
        if error is not None and (isinstance(error, SealError) or not self._batches):
            queue.take(lambda task: task is head)
            head.fail(blame(error, work="train"))
        return False

    def _new_batch(self, request: TrainingRequest, slots: int) -> TrainingBatch:
        return TrainingBatch(
            self._model,
            slots=slots,
            rank=request.lora.rank,
            targets=request.lora.target_modules,
            policy=request.policy,
            max_pass_tokens=self._settings.max_pass_tokens,
            alive=self._alive,
        )

    def _fill(self, batch: TrainingBatch, queue: FairQueue[TrainingTask]) -> None:
        def fits(task: TrainingTask) -> bool:
            return batch.fits(task.request)

        missing = sum(map(fits, queue)) - batch.free_slots
        most = self._batches[batch]
        if missing > 0 and batch.slots < most and len(self._batches) == 1:
            wanted = min(most, batch.slots + missing)
            if attempt(lambda: batch.grow(wanted), self._model.device) is not None:
                self._batches[batch] = batch.slots
        while batch.free_slots and (task := queue.take(fits)) is not None:
            begun("train", task)
            self._admit(batch, task)

    def _admit(self, batch: TrainingBatch, task: TrainingTask) -> None:
        """Put a training into a slot; one that cannot be, at the second try either, ends."""
        error = attempt(lambda: self._start(batch, task), self._model.device)
        if error is not None:
            error = attempt(lambda: self._start(batch, task), self._model.device)
        if error is not None:
            task.fail(blame(error, work="train"))

    def _start(self, batch: TrainingBatch, task: TrainingTask) -> None:
        job = task.job
        slot = batch.admit(job)
        resumed = False
        try:
            if task.checkpoints is not None:
                resumed = task.checkpoints.restore(job, batch.state(slot))
        except Exception:
            batch.remove(slot)
            raise
        self._tasks[id(job)] = task
        if resumed:
            task.tell(job.progress())


def drop_unwanted_trainings(queue: FairQueue[TrainingTask]) -> None:
    """End trainings without a slot that nobody waits for, or that are to be put off."""
    while (task := queue.take(lambda task: task.unwanted)) is not None:
        task.succeed(task.job.result(Outcome.CANCELLED, None))
    while (
        task := queue.take(lambda task: task.checkpoints is not None and task.checkpoints.suspended)
    ) is not None:
        task.fail(Suspended.after(0))
