"""Attention, entered through transformers' attention interface under the name `seal`.

Three ways to attend, chosen by what the engine puts into `AttentionHolder` for the length of one
forward pass:

- `PackedRows` (packed_attention.py): training. Rows of many lengths lie behind one another in one
  packed sequence; attention costs what the rows cost and never crosses a row's border.
- `VarlenRows`: training on CUDA. The same without padding, by torch's `varlen_attn`.
- `CachedPass` (cached_attention.py): generation and scoring. Keys and values go into a preallocated
  cache, rows are left-aligned, each at a position of its own.

transformers builds no mask for an attention it does not know; causality, row borders and the
sliding window are applied here.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from seal.engine.cached_attention import CachedPass
from seal.engine.packed_attention import PackedAttention, PackedRows
from seal.errors import Internal, InvalidInput

ATTENTION_NAME = "seal"
_ASKS_FOR_GROUPS = "enable_gqa" in signature(varlen_attn).parameters
"""Whether `varlen_attn` must be told that several query heads share a key head; torch 2.11's has no
such argument, its kernel sees it by the shapes."""


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
        raise InvalidInput(
            "attention with logit soft-capping is not supported",
            field="model",
            remedy="use a model without softcap",
        )
    plan = module.seal_attention.plan  # type: ignore[union-attr]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # squeeze: the gradient of [0] would be written into zeros first
    q, k, v = (tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value))
    if isinstance(plan, PackedRows):
        return PackedAttention.apply(q, k, v, plan, scale, sliding_window)[None], None  # type: ignore[no-untyped-call]
    if isinstance(plan, VarlenRows):
        return _varlen_attention(q, k, v, plan, scale, sliding_window)[None], None
    if isinstance(plan, CachedPass):
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        return plan.attend(q, k, v, layer=layer, scale=scale, window=sliding_window)[None], None
    raise Internal("the engine's attention was entered without a plan")


def _varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: VarlenRows,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """(T, heads, D) -> (T, H, D).

    A window of w keys holds the query's own place and w - 1 before it; -1 is without bound.
    """
    earlier = -1 if window is None else window - 1
    groups: dict[str, Any] = {"enable_gqa": q.shape[1] != k.shape[1]} if _ASKS_FOR_GROUPS else {}
    out = varlen_attn(
        q,
        k,
        v,
        plan.borders,
        plan.borders,
        plan.longest,
        plan.longest,
        scale=scale,
        window_size=(earlier, 0),
        **groups,
    )
    return cast(torch.Tensor, out)  # a pair only where the log-sum-exp is asked for
