"""Attention in training, by plain matrix products.

Rows of many lengths lie behind one another in one packed sequence. Rows of like length form a
*bucket* and are padded to its longest, for attention alone. One gather per q, k and v brings the
tokens of all buckets into the order that batched products want, (row, key-value head, query head,
position); every bucket is then a contiguous piece of that memory, and one gather brings the result
back. The backward pass is written by hand: SDPA's backward in bfloat16 is slow on a CPU.

Padding of a bucket stands behind a row's last token, so that no query of the row looks at it; what
it computes is not read. Tokens that belong to no row (padding of a chunk, `layout.py`) read the
last place of the result, which is 0, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seal.engine.layout import cheapest_cut
from seal.engine.transfer import to_device

BUCKET_SCORES = 4096
"""What one more bucket costs, in attention scores: eight small operations in every layer. An
estimate."""
TOKEN_SCORES = 32
"""What one more padded token costs in gathers, in attention scores. An estimate."""


@dataclass(frozen=True)
class Bucket:
    """Rows that are padded to one length.

    The tensors are the host's but for `attended_R`: what is made of them is counted there.
    """

    tokens_R_L: torch.Tensor
    """Token of the packed sequence at each place; padding points at the row's first token."""
    real_R_L: torch.Tensor
    """False at padding."""
    attended_R: torch.Tensor | None
    """Keys that may be attended to in each row; None if all."""

    @property
    def rows(self) -> int:
        """R."""
        return self.tokens_R_L.shape[0]

    @property
    def length(self) -> int:
        """L."""
        return self.tokens_R_L.shape[1]


class PackedRows:
    """How the rows of one packed sequence of T tokens attend.

    What depends on heads and window is made once per pass, not per layer.
    """

    def __init__(self, tokens: int, buckets: Sequence[Bucket], device: torch.device) -> None:
        self.tokens, self.buckets, self.device = tokens, tuple(buckets), device
        self._gathers: dict[tuple[int, int], Gather] = {}
        self._masks: dict[tuple[int, int, int | None, torch.dtype], torch.Tensor] = {}

    def gather(self, kv_heads: int, groups: int) -> Gather:
        """The way of tensors with so many heads, kv_heads x groups, into the buckets and back."""
        key = (kv_heads, groups)
        if key not in self._gathers:
            self._gathers[key] = _make_gather(self, kv_heads, groups)
        return self._gathers[key]

    def mask(
        self, length: int, groups: int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor:
        """(groups * L, L): -inf where a query must not look, else 0."""
        key = (length, groups, window, like.dtype)
        if key not in self._masks:
            place = torch.arange(length, device=like.device)
            hidden = place[None, :] > place[:, None]
            if window is not None:
                hidden |= place[None, :] <= place[:, None] - window
            mask = torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(
                hidden, float("-inf")
            )
            self._masks[key] = mask.repeat(groups, 1)
        return self._masks[key]


def pack_rows(
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    tokens: int,
    attended: Sequence[int] | None = None,
    device: torch.device,
) -> PackedRows:
    """Rows of a packed sequence in buckets of least cost.

    `attended` limits each row to its first keys.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    kinds = sorted(set(lengths), reverse=True)
    before = [sum(length > kind for length in lengths) for kind in kinds] + [
        len(lengths)
    ]  # rows longer than each kind

    def cost(start: int, stop: int) -> float:
        longest = kinds[start]
        return BUCKET_SCORES + (before[stop] - before[start]) * (
            longest * longest + TOKEN_SCORES * longest
        )

    buckets = []
    for start, stop in cheapest_cut(len(kinds), cost):
        rows = order[before[start] : before[stop]]
        place_L = torch.arange(kinds[start])
        real_R_L = place_L < torch.tensor([[lengths[row]] for row in rows])
        tokens_R_L = torch.tensor([[starts[row]] for row in rows]) + torch.where(
            real_R_L, place_L, 0
        )
        limits = (
            None
            if attended is None
            else to_device(torch.tensor([attended[row] for row in rows]), device)
        )
        buckets.append(Bucket(tokens_R_L, real_R_L, limits))
    return PackedRows(tokens, buckets, device)


@dataclass(frozen=True)
class Gather:
    """Between a packed sequence (T, heads, D) and the buckets' memory (places + 1, D).

    The last place holds zeros.
    """

    sources: torch.Tensor
    """(places,) row of (T * heads, D) that each place takes."""
    places_T_H: torch.Tensor
    """(T * heads,) place that each row is read back from."""
    padding: torch.Tensor
    """Places of padding."""
    borders: tuple[int, ...]
    """First place of each bucket, and the number of places."""

    def take(self, tokens_T_H_D: torch.Tensor) -> torch.Tensor:
        """(T, heads, D) -> (places, D)."""
        return tokens_T_H_D.reshape(-1, tokens_T_H_D.shape[-1]).index_select(0, self.sources)

    def room(self, like: torch.Tensor) -> torch.Tensor:
        """(places + 1, D) for the buckets to write into."""
        room = like.new_empty(self.borders[-1] + 1, like.shape[-1])
        room[-1].zero_()
        return room

    def put_back(self, room: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """(places + 1, D) -> (T, heads, D)."""
        return room.index_select(0, self.places_T_H).view(shape)

    def piece(
        self, places: torch.Tensor, number: int, bucket: Bucket, kv_heads: int
    ) -> torch.Tensor:
        """View (rows * kv_heads, groups * L, D) of one bucket's places."""
        return places[self.borders[number] : self.borders[number + 1]].view(
            bucket.rows * kv_heads, -1, places.shape[-1]
        )


def _make_gather(plan: PackedRows, kv_heads: int, groups: int) -> Gather:
    heads = kv_heads * groups
    head_kv_g_1 = torch.arange(heads).view(kv_heads, groups, 1)
    sources, padding, borders = [], [], [0]
    for bucket in plan.buckets:
        shape = (bucket.rows, kv_heads, groups, bucket.length)
        sources.append((bucket.tokens_R_L[:, None, None] * heads + head_kv_g_1).flatten())
        padding.append(~bucket.real_R_L[:, None, None].expand(shape).flatten())
        borders.append(borders[-1] + sources[-1].numel())
    source, padded = torch.cat(sources), torch.cat(padding)
    places_T_H = torch.full((plan.tokens * heads,), borders[-1])
    real = (~padded).nonzero().squeeze(1)
    places_T_H[source[real]] = real
    padding_P = padded.nonzero().squeeze(1)
    return Gather(
        to_device(source, plan.device),
        to_device(places_T_H, plan.device),
        to_device(padding_P, plan.device),
        tuple(borders),
    )


class PackedAttention(torch.autograd.Function):
    """softmax(q k^T * scale) v within each row of a packed sequence.

    With q (T, H, D), k and v (T, kv, D) it is (T, H, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        plan: PackedRows,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Keeps q, k, v and the probabilities of every bucket for the backward pass."""
        kv_heads, groups = k.shape[1], q.shape[1] // k.shape[1]
        queries, keys = plan.gather(kv_heads, groups), plan.gather(kv_heads, 1)
        qs, ks, vs = queries.take(q).mul_(scale), keys.take(k), keys.take(v)
        room = queries.room(q)
        probabilities: list[torch.Tensor] = []
        for number, bucket in enumerate(plan.buckets):
            qb, out = (queries.piece(places, number, bucket, kv_heads) for places in (qs, room))
            kb, vb = (keys.piece(places, number, bucket, kv_heads) for places in (ks, vs))
            scores = torch.baddbmm(
                plan.mask(bucket.length, groups, window, q), qb, kb.transpose(1, 2)
            )
            if bucket.attended_R is not None:
                scores.masked_fill_(
                    _beyond(bucket.attended_R, bucket.length, kv_heads),
                    torch.finfo(scores.dtype).min,
                )
            probabilities.append(torch.softmax(scores, dim=-1))  # float32 inside, whatever the type
            torch.bmm(probabilities[-1], vb, out=out)
        ctx.save_for_backward(qs, ks, vs, *probabilities)
        ctx.plan, ctx.scale, ctx.shapes = plan, scale, (q.shape, k.shape)
        return queries.put_back(room, q.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of q, k and v."""
        plan, (q_shape, k_shape), do = ctx.plan, ctx.shapes, grad_outputs[0]
        qs, ks, vs, *probabilities = ctx.saved_tensors
        kv_heads = k_shape[1]
        queries, keys = plan.gather(kv_heads, q_shape[1] // kv_heads), plan.gather(kv_heads, 1)
        dos = queries.take(do).index_fill_(0, queries.padding, 0.0)
        dqs, dks, dvs = queries.room(do), keys.room(do), keys.room(do)
        for number, (bucket, p) in enumerate(zip(plan.buckets, probabilities, strict=True)):
            qb, dob, dqb = (
                queries.piece(places, number, bucket, kv_heads) for places in (qs, dos, dqs)
            )
            kb, vb, dkb, dvb = (
                keys.piece(places, number, bucket, kv_heads) for places in (ks, vs, dks, dvs)
            )
            torch.bmm(p.transpose(1, 2), dob, out=dvb)
            dp = torch.bmm(dob, vb.transpose(1, 2))
            ds = torch._softmax_backward_data(
                dp, p, -1, p.dtype
            )  # p * (dp - sum(dp * p)), the kernel autograd uses
            torch.bmm(ds, kb, out=dqb)
            torch.bmm(ds.transpose(1, 2), qb, out=dkb)  # qb holds the scale already
        return (
            queries.put_back(dqs, q_shape).mul_(ctx.scale),
            keys.put_back(dks, k_shape),
            keys.put_back(dvs, k_shape),
            None,
            None,
            None,
        )


def _beyond(attended_R: torch.Tensor, length: int, kv_heads: int) -> torch.Tensor:
    """(rows * kv_heads, 1, L) true for keys that nobody attends to."""
    return (
        torch.arange(length, device=attended_R.device) >= attended_R[:, None]
    ).repeat_interleave(kv_heads, 0)[:, None, :]
