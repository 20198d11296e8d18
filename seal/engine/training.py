"""Continuous batching of LoRA training.

Adapters join a running batch when a slot is free and leave when their own steps are done. One step
takes one micro-batch of every active slot. Each slot's loss is its own mean over its own targets
and all are summed, so a slot's gradient is exactly that of training alone. A step is cut into
passes of bounded size (tokens), which bounds memory and keeps activations near the caches;
gradients of passes add up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import record_function

from seal.engine.bank import SlotShape, SlotState, new_rows
from seal.engine.health import unwatched
from seal.engine.job import TrainingJob
from seal.engine.linear import Route
from seal.engine.loss import cross_entropy_with_gradient
from seal.engine.memory import AdapterSize, PassSize, estimate_pass
from seal.engine.model import FrozenModel
from seal.engine.optimizer import SlotOptimizer, clip_divisor, gradient_norms, learning_rate
from seal.engine.packed_attention import PackedRows
from seal.engine.passes import PackedBatch, Pass, cut_into_passes, lay_out
from seal.engine.peft_format import Adapter, concatenate
from seal.engine.requests import TrainingRequest, TrainingResult
from seal.engine.text import TrainingRow
from seal.engine.transfer import to_device
from seal.outcomes import Outcome

LOSS_SPAN, UPDATE_SPAN = "seal.loss", "seal.update"
"""What torch's profiler calls the head with its loss, and clipping with AdamW."""


@dataclass(frozen=True)
class _SlotGradient:
    """What one slot's step has formed."""

    values_P: torch.Tensor
    norm: float
    loss: float
    """Mean over the slot's targets."""


class TrainingBatch:
    """The slots of one shape on one policy, and the jobs in them."""

    def __init__(
        self,
        model: FrozenModel,
        *,
        slots: int,
        rank: int,
        targets: tuple[str, ...],
        policy: Adapter | None,
        max_pass_tokens: int,
        activation_bytes: int | None = None,
        alive: Callable[[], None] = unwatched,
    ) -> None:
        """`activation_bytes`: a pass that takes more is recomputed layer by layer; None: none is.

        Recomputing is gradient checkpointing. `alive` is called after every pass.
        """
        self.model, self.policy, self.targets = model, policy, targets
        self.rank = math.ceil(rank / model.kernels.rank_multiple) * model.kernels.rank_multiple
        self.shape = SlotShape(self.rank, model.target_layers(targets))
        self.slots = slots
        self.jobs: dict[int, TrainingJob] = {}
        self._free = list(range(slots - 1, -1, -1))
        self._values_N_P = new_rows(slots, self.shape.parameters, model.device)
        self._grads_N_P = self._compute_N_P = torch.empty(0)
        """Row g: gradient of the g-th slot of a step, not of slot g; and the g-th slot of a pass,
        in the compute type, B times its scale."""
        self._make_working_rows(slots)
        self._optimizer = SlotOptimizer(slots, self.shape.parameters, model.device)
        self._scales = [0.0] * slots
        self._policy_factors = model.policy_factors(policy)
        self._max_pass_tokens, self.activation_bytes = max_pass_tokens, activation_bytes
        self._alive = alive

    def fits(self, request: TrainingRequest) -> bool:
        """True if the request can join this batch once a slot is free.

        It needs the same policy, no larger rank, no other targets.
        """
        return (
            request.policy is self.policy
            and request.lora.rank <= self.rank
            and set(request.lora.target_modules) <= set(self.targets)
        )

    @property
    def free_slots(self) -> int:
        """Slots that wait for a job."""
        return len(self._free)

    def grow(self, slots: int) -> None:
        """Add free slots; running adapters keep theirs, and nothing is held twice meanwhile.

        If it raises, the batch is as it was.
        """
        added = slots - self.slots
        try:
            self._make_working_rows(slots)
            values_N_P = new_rows(added, self.shape.parameters, self.model.device)
            self._optimizer.grow(added)
        except Exception:
            self._make_working_rows(self.slots)
            raise
        self._values_N_P += values_N_P
        self._scales += [0.0] * added
        self._free[:0] = range(slots - 1, self.slots - 1, -1)
        self.slots = slots

    def _make_working_rows(self, slots: int) -> None:
        """What a step forms its gradients in: nothing outlives a step, so the old rows go first."""
        self._grads_N_P = self._compute_N_P = torch.empty(0)
        size, device = (slots, self.shape.parameters), self.model.device
        self._grads_N_P = torch.zeros(size, device=device)
        self._compute_N_P = torch.zeros(size, dtype=self.model.dtype, device=device)

    def admit(self, job: TrainingJob) -> int:
        """Put a job into a free slot."""
        slot = self._free[-1]
        lora = job.request.lora
        self.shape.initialise(
            self._values_N_P[slot],
            rank=lora.rank,
            targets=lora.target_modules,
            seed=job.request.init_seed,
        )
        self._optimizer.reset(slot)
        self._scales[slot] = lora.alpha / lora.rank
        job.started = time.monotonic()
        self._free.pop()
        self.jobs[slot] = job
        return slot

    @property
    def held_bytes(self) -> int:
        """What the slots take from step to step."""
        rows = (*self._values_N_P, self._grads_N_P, self._compute_N_P)
        return sum(row.nbytes for row in rows) + self._optimizer.held_bytes

    def state(self, slot: int) -> SlotState:
        """The memory of a slot, as checkpoints copy it between steps."""
        return SlotState(self.shape, self._values_N_P[slot], *self._optimizer.state(slot))

    def remove(self, slot: int) -> TrainingJob:
        """Take a job out, finished or not."""
        self._free.append(slot)
        return self.jobs.pop(slot)

    def step(self) -> list[tuple[TrainingJob, TrainingResult]]:
        """One optimiser step of every active slot; returns the jobs that ended."""
        self.advance()
        return self.take_ended()

    def advance(self, slots: Sequence[int] | None = None) -> None:
        """One optimiser step of some slots, None for every active one.

        If it raises, each slot is as it was before, or has done the step: its job's step says.
        """
        started = time.monotonic()
        rows_by_slot = {
            slot: self.jobs[slot].next_rows() for slot in (self.jobs if slots is None else slots)
        }
        formed = self._form_gradients(rows_by_slot)
        tokens = {slot: sum(row.length for row in rows) for slot, rows in rows_by_slot.items()}
        with record_function(UPDATE_SPAN):
            divisors_G = to_device(
                torch.tensor(
                    [
                        clip_divisor(self.jobs[slot].request.optimizer, gradient.norm)
                        for slot, gradient in formed.items()
                    ]
                ),
                self.model.device,
            )
            for (slot, gradient), divisor in zip(formed.items(), divisors_G, strict=True):
                self._update(slot, gradient, divisor)
                self.jobs[slot].tokens += tokens[slot]
        seconds = time.monotonic() - started
        for slot, count in tokens.items():
            self.jobs[slot].engine_seconds += seconds * count / sum(tokens.values())

    def take_ended(self) -> list[tuple[TrainingJob, TrainingResult]]:
        """Free the slots of jobs that have ended."""
        ended = [(slot, job.outcome) for slot, job in self.jobs.items()]
        return [self._end(slot, outcome) for slot, outcome in ended if outcome is not None]

    def _form_gradients(
        self, rows_by_slot: dict[int, list[TrainingRow]]
    ) -> dict[int, _SlotGradient]:
        """Each slot's gradient, with what the host must know of it.

        The one reading at the end is all that a step waits for: the updates that follow are queued,
        and the host lays out the next step while the device works them off.
        """
        targets = {slot: sum(row.targets for row in rows) for slot, rows in rows_by_slot.items()}
        passes = cut_into_passes(rows_by_slot, self._max_pass_tokens)
        sums_N_P = self._grads_N_P if len(passes) == 1 else torch.zeros_like(self._grads_N_P)
        places = {
            slot: place
            for place, slot in enumerate(passes[0].slots if len(passes) == 1 else rows_by_slot)
        }
        loss_sums: list[torch.Tensor] = []
        for part in passes:
            loss_sums.append(self._forward_backward(part, targets))
            self._alive()
            if len(passes) > 1:
                for row, slot in enumerate(part.slots):
                    sums_N_P[places[slot]] += self._grads_N_P[row]
        gradients = {slot: sums_N_P[place] for slot, place in places.items()}
        with record_function(UPDATE_SPAN):
            norms_G = gradient_norms(list(gradients.values()))
        read = iter(torch.cat([*loss_sums, norms_G]).tolist())
        losses = dict.fromkeys(rows_by_slot, 0.0)
        for part in passes:
            for slot in part.slots:
                losses[slot] += next(read) / targets[slot]
        return {
            slot: _SlotGradient(gradient, next(read), losses[slot])
            for slot, gradient in gradients.items()
        }

    def _forward_backward(self, part: Pass, targets: dict[int, int]) -> torch.Tensor:
        """One pass: its g-th slot's gradient goes to row g; returns the slots' summed losses."""
        model, count = self.model, len(part.slots)
        batch = lay_out(part, targets, model, adapted_layers=len(self.shape.spans))
        torch._foreach_copy_(
            list(self._compute_N_P[:count]), [self._values_N_P[slot] for slot in part.slots]
        )
        scales = [self._scales[slot] for slot in part.slots]
        for row, scale in enumerate(scales):  # _foreach_mul_ would round the scale to bfloat16
            self._compute_N_P[row, self.shape.b_start :].mul_(scale)
        factors = self.shape.factors(self._compute_N_P[:count], self._grads_N_P[:count])
        route = Route(batch.layout.products, factors, self._policy_factors)
        embeddings = model.embed(batch.tokens_T).requires_grad_(True)
        with torch.enable_grad():
            hidden_T_d = model.hidden(
                embeddings,
                batch.positions_T,
                route=route,
                plan=batch.layout.attention,
                gradient_checkpointing=self._must_checkpoint(part, batch),
            )
            picked_K_d = hidden_T_d[batch.predictors_K]
        with torch.no_grad(), record_function(LOSS_SPAN):
            losses_K, gradient_K_d = cross_entropy_with_gradient(
                picked_K_d.detach(), model.head_V_d, batch.targets_K, batch.weights_K
            )
        picked_K_d.backward(gradient_K_d)  # type: ignore[no-untyped-call]
        torch._foreach_mul_(list(self._grads_N_P[:count, self.shape.b_start :]), scales)
        return torch.zeros(count, device=model.device).index_add_(0, batch.slot_places_K, losses_K)

    def _must_checkpoint(self, part: Pass, batch: PackedBatch) -> bool:
        """True if the activations of a pass are more than the batch may take."""
        if self.activation_bytes is None:
            return False
        attention = batch.layout.attention
        buckets = (
            attention.buckets if isinstance(attention, PackedRows) else ()
        )  # varlen_attn holds no matrix of scores
        scores = [bucket.rows * bucket.length**2 for bucket in buckets]
        shape = PassSize(
            slots=self.slots,
            tokens=len(batch.tokens_T),
            scores=sum(scores),
            largest_scores=max(scores, default=0),
            targets=len(batch.targets_K),
        )
        policy = (
            None
            if self.policy is None
            else AdapterSize(rank=self.policy.rank, targets=self.policy.target_modules)
        )
        adapter = AdapterSize(rank=self.rank, targets=self.targets)
        return (
            estimate_pass(
                self.model.size, shape, adapter, policy, gradient_checkpointing=False
            ).total
            > self.activation_bytes
        )

    def _update(self, slot: int, gradient: _SlotGradient, divisor: torch.Tensor) -> None:
        """Apply one slot's gradient; one that is not finite changes nothing and ends the job."""
        job = self.jobs[slot]
        optimizer = job.request.optimizer
        finite = math.isfinite(gradient.loss) and math.isfinite(gradient.norm)
        if finite:
            self._optimizer.update(
                slot,
                self._values_N_P[slot],
                gradient.values_P,
                divisor=divisor,
                rate=learning_rate(optimizer, job.step, job.total_steps),
                weight_decay=optimizer.weight_decay,
            )
        job.losses.append(gradient.loss)
        job.step += 1
        if not finite:
            job.outcome = Outcome.DIVERGED
        elif job.step == job.total_steps:
            job.outcome = Outcome.OK

    def _end(self, slot: int, outcome: Outcome) -> tuple[TrainingJob, TrainingResult]:
        job = self.remove(slot)
        if outcome is not Outcome.OK:
            return job, job.result(outcome, None)
        lora = job.request.lora
        adapter = self.shape.read(
            self._values_N_P[slot],
            base=self.model.base,
            rank=lora.rank,
            alpha=lora.alpha,
            targets=lora.target_modules,
            dtype=self.model.dtype,
        )
        if job.request.with_policy and self.policy is not None:
            adapter = concatenate(self.policy, adapter)
        return job, job.result(outcome, adapter)
