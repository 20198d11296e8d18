"""AdamW over slots: each slot has its own rate, step and clipping.

The arithmetic is torch's fused kernel on one contiguous row per slot. The fused kernel divides the
gradient by `grad_scale` while it updates, so clipping costs no pass of its own. Its CPU form reads
raw memory: rows must be contiguous; a test checks it.

The kernel takes one rate and one scale, slots have one each: a call per slot. It reads and writes
each of 28 bytes a parameter once. All slots in one go would have to be written in operations that
walk memory three times as often, and on a GPU the calls of a slot are queued while the one before
is at work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from seal.engine.bank import new_rows
from seal.settings import OptimizerSettings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""torch's and transformers' defaults."""


def learning_rate(settings: OptimizerSettings, step: int, total_steps: int) -> float:
    """Rate of step `step` (from 0) of `total_steps`: never 0.

    As transformers' schedules have it but for the warm-up, which is one step ahead: theirs spends
    its first step at rate 0, and that may be the only step.
    """
    warmup_steps = math.ceil(settings.warmup_ratio * total_steps)
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if settings.schedule == "linear":
        return settings.learning_rate * (1.0 - progress)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate


def clip_divisor(settings: OptimizerSettings, norm: float) -> float:
    """What a gradient of so large a norm is divided by: at least 1, and 1 without clipping.

    One that is not finite is never applied, whatever it is divided by.
    """
    if settings.max_grad_norm == 0 or not math.isfinite(norm):
        return 1.0
    return 1.0 / min(1.0, settings.max_grad_norm / (norm + 1e-6))


def gradient_norms(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Norms (G,) of slots' gradients, each formed as it would be alone."""
    return torch.stack(torch._foreach_norm(list(gradients)))


class SlotOptimizer:
    """AdamW state of N slots of P parameters each."""

    def __init__(self, slots: int, parameters: int, device: torch.device) -> None:
        self._parameters, self._device = parameters, device
        self._first_N_P: list[torch.Tensor] = []
        self._second_N_P: list[torch.Tensor] = []
        self._steps: list[torch.Tensor] = []
        self.grow(slots)

    def grow(self, added: int) -> None:
        """Append slots without a history: all of them, or none if it raises."""
        first, second = (new_rows(added, self._parameters, self._device) for _ in range(2))
        steps = [torch.zeros((), device=self._device) for _ in range(added)]
        self._first_N_P += first
        self._second_N_P += second
        self._steps += steps

    @property
    def held_bytes(self) -> int:
        """What the moments take."""
        return sum(row.nbytes for row in (*self._first_N_P, *self._second_N_P))

    def reset(self, slot: int) -> None:
        """Forget what a slot's former adapter left."""
        self._first_N_P[slot].zero_()
        self._second_N_P[slot].zero_()
        self._steps[slot].zero_()

    def state(self, slot: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views of a slot's first and second moments, (P,) each, and of its step count."""
        return self._first_N_P[slot], self._second_N_P[slot], self._steps[slot]

    def update(
        self,
        slot: int,
        values_P: torch.Tensor,
        gradient_P: torch.Tensor,
        *,
        divisor: torch.Tensor,
        rate: float,
        weight_decay: float,
    ) -> None:
        """Update one slot in place by its gradient, which must be finite, over `divisor`.

        `divisor`: one float32 value on the device, `clip_divisor`.
        """
        self._steps[slot].add_(1)
        torch._fused_adamw_(
            [values_P],
            [gradient_P],
            [self._first_N_P[slot]],
            [self._second_N_P[slot]],
            [],
            [self._steps[slot]],
            grad_scale=divisor,
            found_inf=None,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=rate,
            weight_decay=weight_decay,
            eps=EPSILON,
            maximize=False,
        )
