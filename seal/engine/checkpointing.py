"""How a training in a slot is copied into checkpoints, suspended and resumed.

A checkpoint has the shape of its own adapter (rank and targets of the request), not of the batch
that it was trained in: what a slot has beyond that is 0 and stays 0. A training that is resumed
does the arithmetic of one that was never interrupted. The copy is made in the engine's thread
between two steps; what becomes of it is the caller's business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
import torch

from seal.engine.bank import SlotShape, SlotState
from seal.engine.checkpoint import SlotCheckpoint, fingerprint_of
from seal.engine.job import TrainingJob
from seal.engine.model import FrozenModel
from seal.errors import Transient

log = structlog.get_logger(__name__)


class Suspended(Transient):
    """The training stopped because its caller asked for it; its state is in the last checkpoint."""

    @classmethod
    def after(cls, step: int) -> Suspended:
        """The error of a training that has done so many steps."""
        return cls(
            f"the training was suspended after step {step}",
            remedy="send the same request again: it goes on from there",
        )


class Checkpoints:
    """What `Engine.train` is told about one training's checkpoints, and how it is stopped."""

    def __init__(
        self,
        *,
        every_seconds: float,
        on_checkpoint: Callable[[SlotCheckpoint], None],
        resume: SlotCheckpoint | None = None,
    ) -> None:
        """`on_checkpoint` is called from the engine's thread, between steps.

        At most every `every_seconds`, and once after `suspend`. It must return quickly and not
        raise. `resume`: a checkpoint to go on from; one of another training is logged and not used.
        """
        self.every_seconds, self.on_checkpoint, self.resume = every_seconds, on_checkpoint, resume
        self._suspended = threading.Event()

    def suspend(self) -> None:
        """End the training after its current step with a last checkpoint.

        Its future then raises `Suspended`.
        """
        self._suspended.set()

    @property
    def suspended(self) -> bool:
        """True once `suspend` was called."""
        return self._suspended.is_set()


class JobCheckpoints:
    """The engine's side of `Checkpoints`.

    When a checkpoint is due, and the way between slot and checkpoint.
    """

    def __init__(
        self, checkpoints: Checkpoints, *, fingerprint: str, shape: SlotShape, total_steps: int
    ) -> None:
        self._checkpoints, self._fingerprint, self._shape = checkpoints, fingerprint, shape
        resume, checkpoints.resume = (
            checkpoints.resume,
            None,
        )  # it is large, and the job's from here on
        if resume is not None and not (
            resume.fingerprint == fingerprint
            and resume.step < total_steps
            and resume.values_P.numel() == shape.parameters
        ):
            log.warning(
                "the checkpoint belongs to another training; starting anew", step=resume.step
            )
            resume = None
        self._resume = resume
        self._last = time.monotonic()

    @property
    def suspended(self) -> bool:
        """True once the caller has asked the training to stop."""
        return self._checkpoints.suspended

    def after_step(self, job: TrainingJob, slot: SlotState) -> Suspended | None:
        """Copy the slot if that is due.

        Gives the error with which the training is to leave it if its caller has asked for that.
        """
        suspended = self.suspended
        if suspended or time.monotonic() - self._last >= self._checkpoints.every_seconds:
            self._take(job, slot)
        return Suspended.after(job.step) if suspended else None

    def restore(self, job: TrainingJob, slot: SlotState) -> bool:
        """Put the state to resume from into the job and its fresh slot; False if there is none."""
        self._last = time.monotonic()
        if (saved := self._resume) is None:
            return False
        for row_P, own_P in (
            (slot.values_P, saved.values_P),
            (slot.first_P, saved.first_P),
            (slot.second_P, saved.second_P),
        ):
            row_P.zero_()
            _copy_row(self._shape, own_P, slot.shape, row_P)
        slot.steps.fill_(saved.optimizer_step)
        self._resume = None  # only now: where that failed, it is tried once more
        job.step = job.resumed_step = saved.step
        job.losses = list(saved.losses)
        job.tokens, job.engine_seconds = saved.tokens, saved.engine_seconds
        job.started = time.monotonic() - saved.seconds
        log.info(
            "training resumed", run=job.request.run, step=job.step, total_steps=job.total_steps
        )
        return True

    def _take(self, job: TrainingJob, slot: SlotState) -> None:
        """Copy a slot and hand the copy to the caller."""
        own_rows = [torch.zeros(self._shape.parameters) for _ in range(3)]
        for own_P, row_P in zip(
            own_rows, (slot.values_P, slot.first_P, slot.second_P), strict=True
        ):
            _copy_row(slot.shape, row_P, self._shape, own_P)
        values_P, first_P, second_P = own_rows
        checkpoint = SlotCheckpoint(
            fingerprint=self._fingerprint,
            values_P=values_P,
            first_P=first_P,
            second_P=second_P,
            optimizer_step=int(slot.steps.item()),
            step=job.step,
            losses=tuple(job.losses),
            tokens=job.tokens,
            engine_seconds=job.engine_seconds,
            seconds=time.monotonic() - job.started,
        )
        self._last = time.monotonic()
        self._checkpoints.on_checkpoint(checkpoint)


def job_checkpoints(
    checkpoints: Checkpoints, model: FrozenModel, job: TrainingJob
) -> JobCheckpoints:
    """The engine's side for one job; hashes its rows and its policy."""
    shape = SlotShape(job.request.lora.rank, model.target_layers(job.request.lora.target_modules))
    fingerprint = fingerprint_of(model, job.request, job.rows)
    return JobCheckpoints(
        checkpoints, fingerprint=fingerprint, shape=shape, total_steps=job.total_steps
    )


def _copy_row(
    source: SlotShape, source_P: torch.Tensor, target: SlotShape, target_P: torch.Tensor
) -> None:
    """Copy the layers and ranks that both shapes have; the rest of the target stays as it is."""
    rank = min(source.rank, target.rank)
    taken, given = source.factors(source_P[None]), target.factors(target_P[None])
    for name in taken.keys() & given.keys():
        given[name].a[:, :rank].copy_(taken[name].a[:, :rank])
        given[name].b[:, :, :rank].copy_(taken[name].b[:, :, :rank])
