"""Attention by plain matrix products, entered through transformers' attention interface under the name `seal`.

Two ways to attend, chosen by what the engine puts into `AttentionHolder` for the length of one forward pass:

- `PackedRows`: training. Rows of many lengths lie behind one another in one packed sequence; rows of like length are gathered into a bucket
  (rows, length), so attention costs what the rows cost and never crosses a row's border. The backward pass is written by hand with
  gathers in both directions (every real token lies in exactly one place), because index_add on CPU and SDPA's CPU backward are slow.
- `CachedPass` (cache.py): generation and scoring. Keys and values go into a preallocated cache, rows are left-aligned, each at a position
  of its own.

transformers builds no mask for an attention it does not know; causality, row borders and the sliding window are applied here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from seal.engine.cache import CachedPass
from seal.errors import Internal, InvalidInput

ATTENTION_NAME = "seal"
MAX_BUCKET_PADDING = 0.25
"""A bucket takes in the next shorter row while it is at least this close to the bucket's length."""


@dataclass(frozen=True)
class Bucket:
    """Rows of like length, padded to the longest."""

    rows: int
    length: int
    index: torch.Tensor
    """(rows * length,) position in the packed sequence; padding points at the row's first token."""
    own: torch.Tensor
    """(rows, 1, length, 1) 1 where the place holds a token of its own, 0 where it is padding, in the compute type."""


@dataclass(frozen=True)
class PackedRows:
    """Rows of a packed sequence of T tokens."""

    buckets: tuple[Bucket, ...]
    inverse: torch.Tensor
    """(T,) place of each token in the concatenated buckets; tokens that are padding point at 0."""
    real: torch.Tensor
    """(T, 1, 1) 1 for real tokens, 0 for padding, in the compute type."""


def pack_rows(starts: Sequence[int], lengths: Sequence[int], tokens: int, *, dtype: torch.dtype, device: torch.device) -> PackedRows:
    """Sort rows into buckets. `starts` are positions in the packed sequence of `tokens` tokens."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    buckets: list[Bucket] = []
    inverse = torch.zeros(tokens, dtype=torch.long)
    real = torch.zeros(tokens, dtype=dtype)
    offset, first = 0, 0
    while first < len(order):
        length, stop = lengths[order[first]], first + 1
        while stop < len(order) and lengths[order[stop]] >= (1 - MAX_BUCKET_PADDING) * length:
            stop += 1
        index = torch.empty(stop - first, length, dtype=torch.long)
        own = torch.zeros(stop - first, 1, length, 1, dtype=dtype)
        for place, row in enumerate(order[first:stop]):
            start, count = starts[row], lengths[row]
            index[place] = start
            index[place, :count] = torch.arange(start, start + count)
            own[place, :, :count] = 1
            inverse[start : start + count] = torch.arange(count) + offset + place * length
            real[start : start + count] = 1
        buckets.append(Bucket(stop - first, length, index.view(-1).to(device), own.to(device)))
        offset += (stop - first) * length
        first = stop
    return PackedRows(tuple(buckets), inverse.to(device), real.to(device)[:, None, None])


class AttentionHolder:
    """How the running forward pass attends; shared by all layers of one model."""

    def __init__(self) -> None:
        self.plan: PackedRows | CachedPass | None = None


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
    if isinstance(plan, CachedPass):
        return plan.attend(q, k, v, layer=int(module.layer_idx), scale=scale, window=sliding_window)[None], None  # type: ignore[arg-type]
    raise Internal("the engine's attention was entered without a plan")


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
        probabilities: list[torch.Tensor] = []
        outs: list[torch.Tensor] = []
        for bucket in plan.buckets:
            qb, kb, vb = (_gather(tensor, bucket, kv_heads) for tensor in (q, k, v))
            scores = torch.matmul(qb * scale, kb.transpose(2, 3))
            scores += _causal_mask(bucket.length, groups, window, q)
            probability = torch.softmax(scores, dim=-1)  # float32 inside, whatever the type
            outs.append(_ungroup_heads(torch.matmul(probability, vb), bucket.length).reshape(-1, *q.shape[1:]))
            probabilities.append(probability)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.plan, ctx.scale = plan, scale
        return torch.cat(outs)[plan.inverse]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *probabilities = ctx.saved_tensors
        plan: PackedRows = ctx.plan
        kv_heads = k.shape[1]
        dqs: list[torch.Tensor] = []
        dks: list[torch.Tensor] = []
        dvs: list[torch.Tensor] = []
        for bucket, p in zip(plan.buckets, probabilities, strict=True):
            qb, kb, vb, dob = (_gather(tensor, bucket, kv_heads) for tensor in (q, k, v, grad_outputs[0]))
            # a padding place repeats its row's first token, whose gradient must count once
            dob = dob * bucket.own.repeat(1, 1, q.shape[1] // kv_heads, 1)
            dvs.append(_ungroup_heads(torch.matmul(p.transpose(2, 3), dob), bucket.length).reshape(-1, *v.shape[1:]))
            dp = torch.matmul(dob, vb.transpose(2, 3))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)  # p * (dp - sum(dp * p)), the kernel autograd uses
            dqs.append(_ungroup_heads(torch.matmul(ds, kb) * ctx.scale, bucket.length).reshape(-1, *q.shape[1:]))
            dks.append(_ungroup_heads(torch.matmul(ds.transpose(2, 3), qb * ctx.scale), bucket.length).reshape(-1, *k.shape[1:]))
        dq, dk, dv = (torch.cat(parts)[plan.inverse] * plan.real for parts in (dqs, dks, dvs))
        return dq, dk, dv, None, None, None


def _gather(tokens: torch.Tensor, bucket: Bucket, kv_heads: int) -> torch.Tensor:
    """(T, heads, D) -> (rows, kv, g * length, D)."""
    rows = tokens.index_select(0, bucket.index).view(bucket.rows, bucket.length, *tokens.shape[1:])
    return _group_heads(rows, kv_heads)
