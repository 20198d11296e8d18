"""Attention by plain matrix products, entered through transformers' attention interface under the name `seal`.

Three ways to attend, chosen by what the engine puts into `AttentionHolder` for the length of one forward pass:

- `PackedRows`: training. Rows of many lengths lie behind one another in one packed sequence; rows of like length form a bucket
  (rows, length), a strided view, so attention costs what the rows cost and never crosses a row's border. The backward pass is written
  by hand: SDPA's backward in bfloat16 is slow on a CPU.
- `VarlenRows`: training on CUDA. The same without padding, by torch's `varlen_attn`.
- `CachedPass` (cache.py): generation and scoring. Keys and values go into a preallocated cache, rows are left-aligned, each at a position
  of its own.

transformers builds no mask for an attention it does not know; causality, row borders and the sliding window are applied here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from seal.engine.cache import CachedPass
from seal.engine.layout import RowChunk
from seal.errors import Internal, InvalidInput

ATTENTION_NAME = "seal"


@dataclass(frozen=True)
class Bucket:
    """Rows of one padded length, as a strided view of the packed sequence: `rows` rows side by side in each of `blocks` blocks."""

    token_start: int
    blocks: int
    block: int
    """Tokens from one block to the next."""
    offset: int
    """First row's place in its block."""
    rows: int
    length: int
    attended: torch.Tensor | None = None
    """(blocks * rows,) keys that may be attended to in each row; None if all."""

    def view(self, tokens: torch.Tensor) -> torch.Tensor:
        """(T, heads, D) -> view (blocks, rows, length, heads, D)."""
        blocks = tokens[self.token_start : self.token_start + self.blocks * self.block].view(self.blocks, self.block, *tokens.shape[1:])
        rows = blocks[:, self.offset : self.offset + self.rows * self.length]
        return rows.view(self.blocks, self.rows, self.length, *tokens.shape[1:])


@dataclass(frozen=True)
class PackedRows:
    """Rows of a packed sequence; every token lies in exactly one bucket."""

    buckets: tuple[Bucket, ...]


def pack_rows(
    chunks: Sequence[RowChunk], *, attended: Sequence[Sequence[int]] | None = None, device: torch.device | None = None
) -> PackedRows:
    """Buckets of all chunks: neighbouring rows of one length go together. `attended` limits each slot's rows to their first tokens."""
    buckets: list[Bucket] = []
    for item in chunks:
        chunk, first = item.chunk, 0
        for length, group in itertools.groupby(item.row_lengths):
            rows = len(list(group))
            limits = None
            if attended is not None:
                slots = attended[chunk.slot_start : chunk.slot_stop]
                places = range(first, first + rows)
                limits = torch.tensor([slot[place] if place < len(slot) else length for slot in slots for place in places], device=device)
            buckets.append(Bucket(chunk.token_start, chunk.slots, chunk.block, item.row_starts[first], rows, length, limits))
            first += rows
    return PackedRows(tuple(buckets))


@dataclass(frozen=True)
class VarlenRows:
    """Rows that follow one another without padding."""

    borders: torch.Tensor
    """(rows + 1,) int32: first token of each row, and T."""
    longest: int
    """Tokens of the longest row."""


class AttentionHolder:
    """How the running forward pass attends; shared by all layers of one model."""

    def __init__(self) -> None:
        self.plan: PackedRows | VarlenRows | CachedPass | None = None


def register_attention() -> None:
    """Make `attn_implementation="seal"` known to transformers."""
    AttentionInterface.register(ATTENTION_NAME, _attention_forward)


def _attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: q (1, H, T, D), k and v (1, kv, T, D) -> (1, T, H, D)."""
    if softcap is not None:
        raise InvalidInput("attention with logit soft-capping is not supported", field="model", remedy="use a model without softcap")
    plan = module.seal_attention.plan  # type: ignore[union-attr]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (tensor.transpose(1, 2)[0] for tensor in (query, key, value))
    if isinstance(plan, PackedRows):
        return _PackedAttention.apply(q, k, v, plan, scale, sliding_window)[None], None  # type: ignore[no-untyped-call]
    if isinstance(plan, VarlenRows):
        return _varlen_attention(q, k, v, plan, scale, sliding_window)[None], None
    if isinstance(plan, CachedPass):
        return plan.attend(q, k, v, layer=int(module.layer_idx), scale=scale, window=sliding_window)[None], None  # type: ignore[arg-type]
    raise Internal("the engine's attention was entered without a plan")


def _varlen_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: VarlenRows, scale: float, window: int | None
) -> torch.Tensor:
    """(T, heads, D) -> (T, H, D). A window of w keys holds the query's own place and w - 1 before it; -1 is without bound."""
    earlier = -1 if window is None else window - 1
    grouped = q.shape[1] != k.shape[1]
    out = varlen_attn(
        q, k, v, plan.borders, plan.borders, plan.longest, plan.longest, scale=scale, window_size=(earlier, 0), enable_gqa=grouped
    )
    return cast(torch.Tensor, out)  # a pair only where the log-sum-exp is asked for


def _group_heads(rows_R_T_H_D: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(R, T, H, D) -> (R, kv, g * T, D): the g query heads that share a key-value head lie one after another."""
    rows, length, heads, width = rows_R_T_H_D.shape
    split = rows_R_T_H_D.view(rows, length, kv_heads, heads // kv_heads, width)
    return split.permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, width)


def _ungroup_heads(grouped: torch.Tensor, length: int) -> torch.Tensor:
    """(R, kv, g * T, D) -> (R, T, H, D)."""
    rows, kv_heads, _, width = grouped.shape
    return grouped.view(rows, kv_heads, -1, length, width).permute(0, 3, 1, 2, 4).reshape(rows, length, -1, width)


def _causal_mask(length: int, groups: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """(g * T, T) -inf where a query must not look, else 0."""
    place = torch.arange(length, device=like.device)
    hidden = place[None, :] > place[:, None]
    if window is not None:
        hidden |= place[None, :] <= place[:, None] - window
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf")).repeat(groups, 1)


class _PackedAttention(torch.autograd.Function):
    """softmax(q k^T * scale) v within each row of a packed sequence: q (T, H, D), k and v (T, kv, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: PackedRows, scale: float, window: int | None
    ) -> torch.Tensor:
        kv_heads, groups = k.shape[1], q.shape[1] // k.shape[1]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        saved: list[torch.Tensor] = []
        for bucket in plan.buckets:
            qb, kb, vb = (_grouped(bucket.view(tensor), kv_heads) for tensor in (q, k, v))
            qb.mul_(scale)
            scores = torch.matmul(qb, kb.transpose(2, 3))
            scores += _causal_mask(bucket.length, groups, window, q)
            if bucket.attended is not None:
                scores.masked_fill_(_beyond(bucket.attended, bucket.length), torch.finfo(scores.dtype).min)
            probability = torch.softmax(scores, dim=-1)  # float32 inside, whatever the type
            _ungrouped(torch.matmul(probability, vb), bucket.view(out))
            saved += qb, kb, vb, probability
        ctx.save_for_backward(*saved)
        ctx.plan, ctx.scale, ctx.shapes = plan, scale, (q.shape, k.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_shape, k_shape = ctx.shapes
        do, kv_heads = grad_outputs[0], k_shape[1]
        dq, dk, dv = do.new_empty(q_shape), do.new_empty(k_shape), do.new_empty(k_shape)
        saved = ctx.saved_tensors
        for bucket, qb, kb, vb, p in zip(ctx.plan.buckets, *(saved[place::4] for place in range(4)), strict=True):
            dob = _grouped(bucket.view(do), kv_heads)
            _ungrouped(torch.matmul(p.transpose(2, 3), dob), bucket.view(dv))
            dp = torch.matmul(dob, vb.transpose(2, 3))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)  # p * (dp - sum(dp * p)), the kernel autograd uses
            _ungrouped(torch.matmul(ds, kb).mul_(ctx.scale), bucket.view(dq))
            _ungrouped(torch.matmul(ds.transpose(2, 3), qb), bucket.view(dk))  # qb holds the scale already
        return dq, dk, dv, None, None, None


def _grouped(rows: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """View (blocks, rows, length, heads, D) -> new (blocks * rows, kv, g * length, D)."""
    blocks, count, length, heads, width = rows.shape
    split = rows.view(blocks, count, length, kv_heads, heads // kv_heads, width).permute(0, 1, 3, 4, 2, 5)
    return split.contiguous().view(blocks * count, kv_heads, heads // kv_heads * length, width)


def _ungrouped(grouped: torch.Tensor, out: torch.Tensor) -> None:
    """Write (blocks * rows, kv, g * length, D) into the view (blocks, rows, length, heads, D)."""
    blocks, count, length, heads, width = out.shape
    kv_heads = grouped.shape[1]
    split = grouped.view(blocks, count, kv_heads, heads // kv_heads, length, width).permute(0, 1, 4, 2, 3, 5)
    out.view(blocks, count, length, kv_heads, heads // kv_heads, width).copy_(split)


def _beyond(attended: torch.Tensor, length: int) -> torch.Tensor:
    """(rows, 1, 1, length) true for keys that nobody attends to."""
    return (torch.arange(length, device=attended.device) >= attended[:, None])[:, None, None, :]
