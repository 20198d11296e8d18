"""The passes of a training step: its rows cut into parts of bounded size, and laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from seal.engine.kernels import PassLayout
from seal.engine.model import FrozenModel
from seal.engine.text import TrainingRow
from seal.engine.transfer import to_device


@dataclass(frozen=True)
class Pass:
    """Slots, by falling number of tokens, with the rows that one forward pass takes of each."""

    slots: tuple[int, ...]
    rows: tuple[tuple[TrainingRow, ...], ...]


def cut_into_passes(rows_by_slot: dict[int, list[TrainingRow]], max_tokens: int) -> list[Pass]:
    """Cut a step's rows into as few passes of about `max_tokens` as it takes, of about equal size.

    Slots with many tokens come first, so that the blocks of a pass are alike.
    """
    total = sum(row.length for rows in rows_by_slot.values() for row in rows)
    max_tokens = math.ceil(total / math.ceil(total / max_tokens))
    passes: list[Pass] = []
    current: dict[int, list[TrainingRow]] = {}
    used = 0
    for slot in sorted(
        rows_by_slot, key=lambda slot: -sum(row.length for row in rows_by_slot[slot])
    ):
        for row in rows_by_slot[slot]:
            if current and used + row.length / 2 > max_tokens:
                passes.append(_as_pass(current))
                current, used = {}, 0
            current.setdefault(slot, []).append(row)
            used += row.length
    return [*passes, _as_pass(current)]


def _as_pass(rows_by_slot: dict[int, list[TrainingRow]]) -> Pass:
    """Slots by falling number of tokens, so that neighbours make chunks."""
    slots = sorted(
        rows_by_slot,
        key=lambda slot: sum(row.length for row in rows_by_slot[slot]),
        reverse=True,
    )
    return Pass(tuple(slots), tuple(tuple(rows_by_slot[slot]) for slot in slots))


@dataclass(frozen=True)
class PackedBatch:
    """One pass as tensors; T tokens with padding, K targets."""

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    predictors_K: torch.Tensor
    """Place of the token that predicts each target."""
    targets_K: torch.Tensor
    weights_K: torch.Tensor
    """1 / number of targets in the slot's whole step."""
    slot_places_K: torch.Tensor
    """Index into the pass's slots."""
    layout: PassLayout


def lay_out(
    part: Pass, targets: dict[int, int], model: FrozenModel, *, adapted_layers: int
) -> PackedBatch:
    """Put the rows of a pass where the model's kernels want them."""
    lengths_G = [[row.length for row in rows] for rows in part.rows]
    layout = model.kernels.lay_out(
        lengths_G, model.device, adapted_layers=adapted_layers, attended_G=_attended(part)
    )
    tokens, positions = [0] * layout.tokens, [0] * layout.tokens
    predictors: list[int] = []
    target_ids: list[int] = []
    weights: list[float] = []
    places: list[int] = []
    for place, (slot, rows, starts) in enumerate(
        zip(part.slots, part.rows, layout.row_starts_G, strict=True)
    ):
        for row, start in zip(rows, starts, strict=True):
            stop = start + row.length
            tokens[start:stop] = row.tokens
            positions[start:stop] = range(row.length)
            predictors += range(stop - 1 - row.targets, stop - 1)
            target_ids += tokens[stop - row.targets : stop]
            weights += [1.0 / targets[slot]] * row.targets
            places += [place] * row.targets
    device = model.device
    return PackedBatch(
        to_device(torch.tensor(tokens), device),
        to_device(torch.tensor(positions), device),
        to_device(torch.tensor(predictors), device),
        to_device(torch.tensor(target_ids), device),
        to_device(torch.tensor(weights), device),
        to_device(torch.tensor(places), device),
        layout,
    )


def _attended(part: Pass) -> list[list[int]] | None:
    """Tokens of each row that may be attended to, where any row has padding of its own."""
    if not any(row.pads for rows in part.rows for row in rows):
        return None
    return [[row.length - row.pads for row in rows] for rows in part.rows]
