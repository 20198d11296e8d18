"""The two ways to lay out and multiply a training pass: padded, and packed for CUDA.

A training step needs three things of a layout: where the rows lie, how a slot's factors meet its
tokens (`SlotProducts`) and how rows attend. Everything else, from the embedding to the optimiser,
is the same for both:

- padded: slots with about as many tokens form chunks of equal blocks (`layout.py`); batched matrix
  products over the blocks of each chunk, matmul attention over buckets of rows
  (`packed_attention.py`). Any device, any type.
- packed: rows follow one another without padding; `grouped_mm` multiplies each slot's stretch of
  tokens by its own factors and `varlen_attn` attends within each row. bfloat16 on CUDA.

The packed kernels read memory in units of 16 bytes: every row of a matrix and every slot's factors
must begin at a multiple of 8 bfloat16 values. Widths of models are multiples of 8; ranks are
rounded up (`rank_multiple`), and what a slot does not use stays zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch.nn import functional as F

from seal.engine.attention import VarlenRows
from seal.engine.layout import MAX_CHUNK_TOKENS, Chunk, make_chunks
from seal.engine.packed_attention import PackedRows, pack_rows
from seal.engine.transfer import to_device

ALIGNED_VALUES = 8
"""bfloat16 values in the 16 bytes at whose multiples the packed kernels read."""
CHUNK_FLOP = {torch.bfloat16: 70e6, torch.float32: 17e6}
"""What the frozen linears could do while one more chunk delays one layer with an adapter: 0.17 ms,
measured on 2 cores, at what a step reaches there, 0.4 TFLOP/s in bfloat16 (AVX512-BF16) and 0.1
TFLOP/s in float32 (AVX2)."""
LARGEST_HEAD = 256
"""Largest head that FlashAttention takes."""


class SlotProducts(Protocol):
    """Products of tokens with the factors of the slot that each token belongs to.

    T tokens, G slots.
    """

    def multiply(self, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> torch.Tensor:
        """(T, n): each token times its slot's weights."""

    def add(self, y_T_n: torch.Tensor, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> None:
        """Add `multiply(x, weights)` to y in place."""

    def reduce(
        self, left_T_m: torch.Tensor, right_T_n: torch.Tensor, out_G_m_n: torch.Tensor
    ) -> None:
        """Write the sum over each slot's tokens of left^T right into the float32 `out`."""


@dataclass(frozen=True)
class PaddedProducts:
    """Batched matrix products, one for the equal blocks of each chunk.

    The chunks hold every token.
    """

    chunks: Sequence[Chunk]

    def multiply(self, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> torch.Tensor:
        """(T, n): each token times its slot's weights."""
        y_T_n = x_T_k.new_empty(x_T_k.shape[0], weights_G_k_n.shape[2])
        for chunk in self.chunks:
            torch.bmm(
                _blocks(x_T_k, chunk), _factors(weights_G_k_n, chunk), out=_blocks(y_T_n, chunk)
            )
        return y_T_n

    def add(self, y_T_n: torch.Tensor, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> None:
        """Add `multiply(x, weights)` to y in place."""
        for chunk in self.chunks:
            _blocks(y_T_n, chunk).baddbmm_(_blocks(x_T_k, chunk), _factors(weights_G_k_n, chunk))

    def reduce(
        self, left_T_m: torch.Tensor, right_T_n: torch.Tensor, out_G_m_n: torch.Tensor
    ) -> None:
        """Write the sum over each slot's tokens of left^T right into the float32 `out`."""
        for chunk in self.chunks:
            _factors(out_G_m_n, chunk).copy_(
                torch.bmm(_blocks(left_T_m, chunk).transpose(1, 2), _blocks(right_T_n, chunk))
            )


@dataclass(frozen=True)
class PackedProducts:
    """One grouped matrix product for all slots."""

    stops_G: torch.Tensor
    """int32: the token after each slot's last."""

    def multiply(self, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> torch.Tensor:
        """(T, n): each token times its slot's weights."""
        return F.grouped_mm(x_T_k.contiguous(), weights_G_k_n, offs=self.stops_G)

    def add(self, y_T_n: torch.Tensor, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> None:
        """Add `multiply(x, weights)` to y in place."""
        y_T_n.add_(self.multiply(x_T_k, weights_G_k_n))

    def reduce(
        self, left_T_m: torch.Tensor, right_T_n: torch.Tensor, out_G_m_n: torch.Tensor
    ) -> None:
        """Write the sum over each slot's tokens of left^T right into the float32 `out`."""
        out_G_m_n.copy_(
            F.grouped_mm(left_T_m.contiguous().t(), right_T_n.contiguous(), offs=self.stops_G)
        )


class PlainProducts:
    """Matrix products of a single slot, as an M-step has: G is 1."""

    def multiply(self, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> torch.Tensor:
        """(T, n): each token times the weights."""
        return x_T_k @ weights_G_k_n[0]

    def add(self, y_T_n: torch.Tensor, x_T_k: torch.Tensor, weights_G_k_n: torch.Tensor) -> None:
        """Add `multiply(x, weights)` to y in place."""
        y_T_n.addmm_(x_T_k, weights_G_k_n[0])

    def reduce(
        self, left_T_m: torch.Tensor, right_T_n: torch.Tensor, out_G_m_n: torch.Tensor
    ) -> None:
        """Write left^T right into the float32 `out`."""
        out_G_m_n[0].copy_(left_T_m.t() @ right_T_n)


@dataclass(frozen=True)
class PassLayout:
    """Where the rows of one pass lie, and how its tokens are multiplied and attend."""

    row_starts_G: tuple[tuple[int, ...], ...]
    """First token of each row of each slot."""
    tokens: int
    """T, padding included."""
    products: SlotProducts
    attention: PackedRows | VarlenRows


class Kernels(Protocol):
    """One way to lay out and multiply a pass."""

    rank_multiple: ClassVar[int]
    """Slots are stored with a rank that is a multiple of this."""

    def lay_out(
        self,
        rows_G: Sequence[Sequence[int]],
        device: torch.device,
        *,
        adapted_layers: int = 0,
        attended_G: Sequence[Sequence[int]] | None = None,
    ) -> PassLayout:
        """Lay out slots' rows, given their lengths: slots in falling order of their tokens.

        `adapted_layers`: how many layers have adapters; `attended_G`: how many of each row's tokens
        may be attended to, None for all.
        """


@dataclass(frozen=True)
class PaddedKernels:
    """Chunks, buckets and batched products."""

    chunk_tokens: float = 0.0
    """What one more chunk costs in each layer with an adapter, in tokens of padding."""
    rank_multiple: ClassVar[int] = 1

    def lay_out(
        self,
        rows_G: Sequence[Sequence[int]],
        device: torch.device,
        *,
        adapted_layers: int = 0,
        attended_G: Sequence[Sequence[int]] | None = None,
    ) -> PassLayout:
        """Pad blocks to those of the neighbouring slots."""
        chunk_tokens = min(MAX_CHUNK_TOKENS, self.chunk_tokens * adapted_layers)
        chunks = make_chunks([sum(rows) for rows in rows_G], chunk_tokens=chunk_tokens)
        blocks_G = [
            start
            for chunk in chunks
            for start in range(chunk.token_start, chunk.token_stop, chunk.block)
        ]
        starts_G = tuple(
            tuple(itertools.accumulate(rows[:-1], initial=block))
            for block, rows in zip(blocks_G, rows_G, strict=True)
        )
        tokens = chunks[-1].token_stop
        attention = pack_rows(
            _flat(starts_G),
            _flat(rows_G),
            tokens=tokens,
            attended=None if attended_G is None else _flat(attended_G),
            device=device,
        )
        return PassLayout(starts_G, tokens, PaddedProducts(chunks), attention)


class PackedKernels:
    """Rows without padding for `grouped_mm` and `varlen_attn`."""

    rank_multiple: ClassVar[int] = ALIGNED_VALUES

    def lay_out(
        self,
        rows_G: Sequence[Sequence[int]],
        device: torch.device,
        *,
        adapted_layers: int = 0,
        attended_G: Sequence[Sequence[int]] | None = None,
    ) -> PassLayout:
        """Rows behind one another, slot by slot.

        Padded where not all may be attended to, which `varlen_attn` cannot say.
        """
        if attended_G is not None:
            return PaddedKernels().lay_out(
                rows_G, device, adapted_layers=adapted_layers, attended_G=attended_G
            )
        borders = (0, *itertools.accumulate(length for rows in rows_G for length in rows))
        last_rows = list(itertools.accumulate(map(len, rows_G)))
        starts_G = tuple(
            borders[stop - len(rows) : stop] for stop, rows in zip(last_rows, rows_G, strict=True)
        )
        stops_G = to_device(
            torch.tensor([borders[stop] for stop in last_rows], dtype=torch.int32), device
        )
        attention = VarlenRows(
            to_device(torch.tensor(borders, dtype=torch.int32), device),
            max(length for rows in rows_G for length in rows),
        )
        products = PlainProducts() if len(rows_G) == 1 else PackedProducts(stops_G)
        return PassLayout(starts_G, borders[-1], products, attention)


def choose_kernels(
    device: torch.device, dtype: torch.dtype, *, head_dim: int, layers: Sequence[tuple[int, int]]
) -> Kernels:
    """Packed where the kernels exist and the model's widths suit them; else padded.

    They exist for bfloat16 on CUDA from compute capability 8.0 on. `layers`: (in, out) of all
    linears that tokens go through.
    """
    widths = {width for layer in layers for width in layer}
    aligned = head_dim <= LARGEST_HEAD and all(
        width % ALIGNED_VALUES == 0 for width in (head_dim, *widths)
    )
    if (
        device.type == "cuda"
        and dtype == torch.bfloat16
        and aligned
        and torch.cuda.get_device_capability(device) >= (8, 0)
    ):
        return PackedKernels()
    token_flop = 4 * sum(
        width_in * width_out for width_in, width_out in layers
    )  # forward, and the gradient of the input
    return PaddedKernels(CHUNK_FLOP.get(dtype, 0.0) / token_flop)


def _blocks(tokens_T: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """(T, d) -> view (slots, block, d) of the chunk's tokens."""
    return tokens_T[chunk.token_start : chunk.token_stop].view(
        chunk.slots, chunk.block, tokens_T.shape[-1]
    )


def _flat(numbers_G: Sequence[Sequence[int]]) -> list[int]:
    return [number for numbers in numbers_G for number in numbers]


def _factors(factors_G: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    return factors_G[chunk.slot_start : chunk.slot_stop]
