"""Slots: N adapters in training, each stored as one float32 row.

A slot's row holds the A of every target layer and then the B of every target layer. So the compute
copy is one cast, the gradient one buffer, clipping one norm per row and AdamW one fused call per
row; a layer sees strided views (N, r, in) and (N, out, r) of the same memory. An adapter of smaller
rank or with fewer targets leaves the rest of its row 0: a zero A and a zero B get zero gradients,
so what is masked stays 0 without a mask.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from seal.bases import BaseReference
from seal.engine.linear import Factors
from seal.engine.peft_format import Adapter, LoraPair
from seal.errors import InvalidInput


def new_rows(count: int, parameters: int, device: torch.device) -> list[torch.Tensor]:
    """Zeros (P,) float32 for so many slots.

    A row of its own for each: a batch that grows gets more of them and moves none.
    """
    return [torch.zeros(parameters, device=device) for _ in range(count)]


@dataclass(frozen=True)
class LayerSize:
    """Widths of one target layer."""

    in_features: int
    out_features: int


def parameters_per_rank(layers: Mapping[str, LayerSize], targets: Collection[str]) -> int:
    """Parameters that each rank of an adapter has on the layers whose last names are targets."""
    chosen = (size for name, size in layers.items() if name.rsplit(".", 1)[-1] in targets)
    return sum(size.in_features + size.out_features for size in chosen)


@dataclass(frozen=True)
class Span:
    """Where one layer's factors lie in a slot's row."""

    a: int
    b: int
    size: LayerSize


class SlotShape:
    """Rank, target layers and their places in a slot's row."""

    def __init__(self, rank: int, layers: Mapping[str, LayerSize]) -> None:
        self.rank = rank
        self.spans: dict[str, Span] = {}
        self.b_start = rank * sum(size.in_features for size in layers.values())
        """Where the A of all layers end and the B begin."""
        a, b = 0, self.b_start
        for name, size in layers.items():
            self.spans[name] = Span(a, b, size)
            a += rank * size.in_features
            b += rank * size.out_features
        self.parameters = b
        """Float32 values in one slot's row."""

    def factors(
        self, values_G_P: torch.Tensor, grads_G_P: torch.Tensor | None = None
    ) -> dict[str, Factors]:
        """Views of stacked rows, layer by layer."""
        result: dict[str, Factors] = {}
        for name in self.spans:
            a, b = self._views(values_G_P, name)
            grad_a, grad_b = (None, None) if grads_G_P is None else self._views(grads_G_P, name)
            result[name] = Factors(a, b, grad_a, grad_b)
        return result

    def _views(self, rows_G_P: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        span, slots = self.spans[name], rows_G_P.shape[0]
        a = rows_G_P[:, span.a : span.a + self.rank * span.size.in_features].view(
            slots, self.rank, span.size.in_features
        )
        b = rows_G_P[:, span.b : span.b + self.rank * span.size.out_features].view(
            slots, span.size.out_features, self.rank
        )
        return a, b

    def initialise(
        self, row_P: torch.Tensor, *, rank: int, targets: Sequence[str], seed: int
    ) -> None:
        """PEFT's default initialisation, from the seed alone.

        A is uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt 5), B = 0.
        """
        generator = torch.Generator().manual_seed(seed)
        row_P.zero_()
        for name, span in self.spans.items():
            if name.rsplit(".", 1)[-1] in targets:
                bound = 1.0 / math.sqrt(span.size.in_features)
                a = torch.empty(rank, span.size.in_features).uniform_(
                    -bound, bound, generator=generator
                )
                self._views(row_P[None], name)[0][0, :rank] = a.to(row_P.device)

    def read(
        self,
        row_P: torch.Tensor,
        *,
        base: BaseReference,
        rank: int,
        alpha: float,
        targets: Sequence[str],
        dtype: torch.dtype,
    ) -> Adapter:
        """Copy one slot out as an adapter of its own rank."""
        pairs: dict[str, LoraPair] = {}
        for name in self.spans:
            if name.rsplit(".", 1)[-1] in targets:
                a, b = self._views(row_P[None], name)
                pairs[name] = LoraPair(
                    a[0, :rank].to("cpu", dtype, copy=True),
                    b[0, :, :rank].to("cpu", dtype, copy=True).contiguous(),
                )
        return Adapter(base, rank, alpha, pairs)


@dataclass(frozen=True)
class SlotState:
    """The memory of one slot: views, (P,) float32 each, and the optimiser's step count."""

    shape: SlotShape
    values_P: torch.Tensor
    first_P: torch.Tensor
    second_P: torch.Tensor
    steps: torch.Tensor


def stack(
    adapters: Sequence[Adapter | None],
    layers: Mapping[str, LayerSize],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Factors]:
    """Stack finished adapters for evaluation: layer -> factors, scale folded into B.

    None is a slot that changes nothing. The factors of a layer are contiguous, which batched
    products need to run well. Raises InvalidInput if a layer or a shape does not fit the base.
    """
    rank, names = stacked_shape(adapters)
    factors = {
        name: Factors(
            torch.zeros(len(adapters), rank, size.in_features, dtype=dtype, device=device),
            torch.zeros(len(adapters), size.out_features, rank, dtype=dtype, device=device),
        )
        for name, size in layers.items()
        if name in names
    }
    for index, adapter in enumerate(adapters):
        if adapter is None:
            continue
        for name, pair in adapter.pairs.items():
            layer = factors.get(name)
            if layer is None or (pair.a.shape[1], pair.b.shape[0]) != (
                layer.a.shape[2],
                layer.b.shape[1],
            ):
                raise InvalidInput(
                    f"adapter layer {name} ({pair.b.shape[0]} x {pair.a.shape[1]}) does not fit "
                    "the base model",
                    field="adapter",
                    remedy="use an adapter trained on this base model",
                )
            layer.a[index, : adapter.rank] = pair.a.to(layer.a)
            layer.b[index, :, : adapter.rank] = pair.b.to(layer.b) * adapter.scale
    return factors


def stacked_shape(adapters: Sequence[Adapter | None]) -> tuple[int, frozenset[str]]:
    """Rank and layers of a stack: the largest rank, and every layer that any adapter has."""
    present = [adapter for adapter in adapters if adapter is not None]
    rank = max((adapter.rank for adapter in present), default=1)
    return rank, frozenset(name for adapter in present for name in adapter.pairs)
