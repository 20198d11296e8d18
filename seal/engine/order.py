"""Which rows a training takes at which step.

A uniform shuffle in every epoch, so drawn that trainings with one seed meet like rows. Each draw
takes one of the rows that the epoch still holds, sorted by length, at a uniformly random place. So
every order of an epoch is equally likely, whatever the lengths. Trainings that share the seed draw
at the same relative place: when one takes its longest row the others take one of their longest, and
a step that holds them all pads little and needs few chunks. An order depends on the training's own
rows and seed only, never on who shares the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def plan_steps(
    lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Rows (indices into `lengths`) of each optimiser step.

    `epochs` passes in steps of `batch_size`, an epoch's last step taking the rest. Step s draws
    from the same random numbers in every training with this seed, however many rows its epochs
    have.
    """
    by_length = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    generator = torch.Generator().manual_seed(seed % 2**63)
    steps: list[tuple[int, ...]] = []
    for _ in range(epochs):
        left = list(by_length)
        for _ in range(math.ceil(len(lengths) / batch_size)):
            places = torch.rand(batch_size, generator=generator, dtype=torch.float64).tolist()
            steps.append(tuple(left.pop(int(place * len(left))) for place in places[: len(left)]))
    return tuple(steps)
