"""How one forward pass of generation or scoring writes and reads the key-value cache.

A pass brings any number of tokens for each of its rows, packed one behind another without padding;
attention alone gathers rows of like length into buckets. What the prompts of all rows begin with is
read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from seal.engine.cache import KeyValueCache
from seal.engine.transfer import to_device
from seal.errors import Internal

MAX_BUCKET_PADDING = 0.25
"""A bucket takes in the next shorter row while it is at least this close to the bucket's length."""


@dataclass(frozen=True)
class Span:
    """What a pass brings for one row: `count` tokens for positions `start` on."""

    place: int
    start: int
    count: int


@dataclass(frozen=True)
class RowBucket:
    """Rows of like length, padded to the longest."""

    places: slice | torch.Tensor
    tokens_R_Q: torch.Tensor
    """Token of the pass at each query; padding points at the row's first token."""
    positions_R_Q: torch.Tensor
    key_count: int
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> torch.Tensor:
        """(R, 1, 1, Q, K) True where a query must not look.

        It must not at later positions, nor at those that left the sliding window.
        """
        if window not in self.masks:
            columns_K = torch.arange(self.key_count, device=self.positions_R_Q.device)
            hidden = columns_K > self.positions_R_Q[..., None]
            if window is not None:
                hidden |= columns_K <= self.positions_R_Q[..., None] - window
            self.masks[window] = hidden[:, None, None]
        return self.masks[window]


class CachedPass:
    """One forward pass over packed tokens of rows in a cache."""

    def __init__(self, cache: KeyValueCache, spans: Sequence[Span], *, common: int = 0) -> None:
        """`common`: positions that hold the same in the places of all rows."""
        device = cache.device
        self.common = common
        end = max(span.start + span.count for span in spans)
        if end > cache.capacity:
            raise Internal(f"key-value cache of {cache.capacity} positions cannot hold {end}")
        counts_R = torch.tensor([span.count for span in spans])
        starts_R = torch.tensor([span.start for span in spans])
        first_R = counts_R.cumsum(0) - counts_R
        self.first_R: list[int] = first_R.tolist()
        """First token of each row in the pass."""
        within_T = torch.arange(int(counts_R.sum())) - first_R.repeat_interleave(counts_R)
        self.cache = cache
        self.positions_T = to_device(starts_R.repeat_interleave(counts_R) + within_T, device)
        places_R = torch.tensor([span.place for span in spans])
        self.places_T = to_device(places_R.repeat_interleave(counts_R), device)
        self.buckets, inverse = _buckets(spans, first_R, device)
        # rows of one length each come out of the only bucket as they went in
        alike = len({span.count for span in spans}) == 1
        self._inverse = None if alike else to_device(inverse, device)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        layer: int,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Store k and v (T, kv, D) and return softmax(q k^T * scale) v (T, H, D) for q (T, H, D).

        Each row looks at its own place.
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.places_T, :, :, self.positions_T] = k
        values[self.places_T, :, self.positions_T] = v
        q = q.contiguous() * scale
        if self._inverse is None:
            return _attend(
                q,
                self.buckets[0],
                keys,
                values,
                window=window,
                in_order=True,
                common=self.common,
            )
        return torch.cat(
            [
                _attend(
                    q,
                    bucket,
                    keys,
                    values,
                    window=window,
                    in_order=False,
                    common=self.common,
                )
                for bucket in self.buckets
            ]
        )[self._inverse]


def _attend(
    q: torch.Tensor,
    bucket: RowBucket,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    window: int | None,
    in_order: bool,
    common: int,
) -> torch.Tensor:
    """(R * Q, H, D) of one bucket, padding included.

    `in_order` if its queries are all of q as it lies.
    """
    (rows, queries), (_, heads, width), kv_heads = bucket.tokens_R_Q.shape, q.shape, keys.shape[1]
    keys_R = keys[bucket.places, :, :, : bucket.key_count]
    values_R = values[bucket.places, :, : bucket.key_count]
    # (R, kv, g * Q, D): the g query heads that share a key-value head lie one after another
    q = q if in_order else q[bucket.tokens_R_Q]
    grouped = (
        q.view(rows, queries, kv_heads, -1, width)
        .permute(0, 2, 3, 1, 4)
        .reshape(rows, kv_heads, -1, width)
    )
    scores = _multiply_keys(grouped, keys_R, common)
    scores.view(rows, kv_heads, -1, queries, bucket.key_count).masked_fill_(
        bucket.mask(window), float("-inf")
    )
    weights = torch.softmax(scores, dim=-1)  # float32 inside, whatever the type
    out = _multiply_values(weights, values_R, common)
    return (
        out.view(rows, kv_heads, -1, queries, width)
        .permute(0, 3, 1, 2, 4)
        .reshape(rows * queries, heads, width)
    )


def _multiply_keys(queries: torch.Tensor, keys_R: torch.Tensor, common: int) -> torch.Tensor:
    """Products (R, kv, Q, K) of queries (R, kv, Q, D) with each row's keys (R, kv, D, K).

    All rows read the first `common` keys in the first row's place: one product of all queries reads
    them once.
    """
    if not common:
        return torch.matmul(queries, keys_R)
    rows, kv_heads, count, width = queries.shape
    together = queries.transpose(0, 1).reshape(kv_heads, rows * count, width)
    first = torch.matmul(together, keys_R[0, :, :, :common])
    own = torch.matmul(queries, keys_R[:, :, :, common:])
    return torch.cat([first.view(kv_heads, rows, count, common).transpose(0, 1), own], dim=-1)


def _multiply_values(weights: torch.Tensor, values_R: torch.Tensor, common: int) -> torch.Tensor:
    """Sums (R, kv, Q, D) of each row's values (R, kv, K, D) by weights (R, kv, Q, K).

    The first `common` values are those in the first row's place.
    """
    if not common:
        return torch.matmul(weights, values_R)
    rows, kv_heads, count, _ = weights.shape
    together = weights[..., :common].transpose(0, 1).reshape(kv_heads, rows * count, common)
    first = torch.matmul(together, values_R[0, :, :common])
    own = torch.matmul(weights[..., common:], values_R[:, :, common:])
    return first.view(kv_heads, rows, count, -1).transpose(0, 1) + own


def _buckets(
    spans: Sequence[Span], first_R: torch.Tensor, device: torch.device
) -> tuple[list[RowBucket], torch.Tensor]:
    """Rows sorted into buckets of like length, and where each token lies.

    The places (T,) are those in the concatenated buckets.
    """
    order = sorted(range(len(spans)), key=lambda row: -spans[row].count)
    inverse = torch.empty(sum(span.count for span in spans), dtype=torch.long)
    buckets: list[RowBucket] = []
    offset, begin = 0, 0
    while begin < len(order):
        length, stop = spans[order[begin]].count, begin + 1
        while stop < len(order) and spans[order[stop]].count >= (1 - MAX_BUCKET_PADDING) * length:
            stop += 1
        rows = order[begin:stop]
        within_Q = torch.arange(length)
        own_R_Q = within_Q < torch.tensor([[spans[row].count] for row in rows])
        within_R_Q = torch.where(own_R_Q, within_Q, 0)
        tokens_R_Q = first_R[rows][:, None] + within_R_Q
        inverse[tokens_R_Q[own_R_Q]] = torch.arange(offset, offset + own_R_Q.numel()).view(
            len(rows), length
        )[own_R_Q]
        buckets.append(
            RowBucket(
                places=_places([spans[row].place for row in rows], device),
                tokens_R_Q=to_device(tokens_R_Q, device),
                positions_R_Q=to_device(
                    torch.tensor([[spans[row].start] for row in rows]) + within_R_Q, device
                ),
                key_count=max(spans[row].start + spans[row].count for row in rows),
            )
        )
        offset += own_R_Q.numel()
        begin = stop
    return buckets, inverse


def _places(places: list[int], device: torch.device) -> slice | torch.Tensor:
    """Neighbouring places as a slice, which reads the cache without a copy."""
    if places == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return to_device(torch.tensor(places), device)
