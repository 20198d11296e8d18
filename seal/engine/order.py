"""Which rows a training takes at which step.

A uniform shuffle in every epoch, so drawn that trainings with one seed meet like rows. Each draw
takes one of the rows that the epoch still holds, sorted by length, at a uniformly random rank. So
every order of an epoch is equally likely, whatever the lengths. Trainings that share the seed draw
at the same relative rank: when one takes its longest row the others take one of their longest, and
a step that holds them all pads little and needs few chunks. An order depends on the training's own
rows and seed only, never on who shares the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class StepOrder:
    """Rows (indices into `lengths`) of each optimiser step.

    `epochs` passes in steps of `batch_size`, an epoch's last step taking the rest. Step s draws
    from the same random numbers in every training with this seed, however many rows its epochs
    have. Only one epoch is held at a time: a request may ask for a thousand of them.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int) -> None:
        self._by_length = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
        self._batch_size, self._epochs, self._seed = batch_size, epochs, seed
        self.steps_per_epoch = math.ceil(len(lengths) / batch_size)
        self._drawn = 0
        """Epochs that the generator has gone through."""
        self._epoch: tuple[tuple[int, ...], ...] = ()
        """Steps of the last of them."""
        self._generator = torch.Generator()

    def __len__(self) -> int:
        return self._epochs * self.steps_per_epoch

    def __getitem__(self, step: int) -> tuple[int, ...]:
        """Rows of one step; going back draws from the first epoch again."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        epoch = step // self.steps_per_epoch
        if epoch < self._drawn - 1:
            self._drawn = 0
        while self._drawn <= epoch:
            self._epoch = self._draw_epoch()
        return self._epoch[step % self.steps_per_epoch]

    def _draw_epoch(self) -> tuple[tuple[int, ...], ...]:
        if self._drawn == 0:
            self._generator.manual_seed(self._seed % 2**63)
        self._drawn += 1
        left = list(self._by_length)
        steps: list[tuple[int, ...]] = []
        for _ in range(self.steps_per_epoch):
            draws = torch.rand(self._batch_size, generator=self._generator, dtype=torch.float64)
            shares = draws.tolist()[: len(left)]
            steps.append(tuple(left.pop(int(share * len(left))) for share in shares))
        return tuple(steps)
