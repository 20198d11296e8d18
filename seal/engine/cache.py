"""The key-value cache of generation and scoring.

A row of the batch has a *place* in the cache for as long as it is written. Places are allocated
once; a row that leaves is overwritten by the last one, so the rows that are written always lie at
places 0, 1, 2, ... and a decoding step reads them as one view, without a copy. Keys lie transposed
(head_dim before position): one query against many keys is then a product with contiguous rows,
three times faster on CPU than against keys in their order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seal.engine.transfer import to_device


class KeyValueCache:
    """Keys and values of every layer.

    Keys (places, kv_heads, head_dim, capacity), values (places, kv_heads, capacity, head_dim).
    """

    def __init__(
        self,
        *,
        places: int,
        capacity: int,
        layers: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.places, self.capacity = places, capacity
        self.keys = [
            torch.zeros(places, kv_heads, head_dim, capacity, dtype=dtype, device=device)
            for _ in range(layers)
        ]
        self.values = [
            torch.zeros(places, kv_heads, capacity, head_dim, dtype=dtype, device=device)
            for _ in range(layers)
        ]

    @property
    def device(self) -> torch.device:
        """Where the cache lies."""
        return self.keys[0].device

    def take_over(self, other: KeyValueCache, rows: int) -> None:
        """Copy the first `rows` places, as many positions as both caches have."""
        width = min(self.capacity, other.capacity)
        for own, old in zip(self.keys, other.keys, strict=True):
            own[:rows, :, :, :width] = old[:rows, :, :, :width]
        for own, old in zip(self.values, other.values, strict=True):
            own[:rows, :, :width] = old[:rows, :, :width]

    def copy(self, sources: Sequence[int], targets: Sequence[int], lengths: Sequence[int]) -> None:
        """Copy the first positions of places, so many of each, to other places.

        A place may be a source many times, but no target is a source.
        """
        if self.device.type != "cpu":
            self.copy_together(sources, targets, lengths)
            return
        pairs = list(zip(sources, targets, lengths, strict=True))
        for keys, values in zip(self.keys, self.values, strict=True):
            for source, target, length in pairs:
                keys[target, :, :, :length] = keys[source, :, :, :length]
                values[target, :, :length] = values[source, :, :length]

    def copy_together(
        self, sources: Sequence[int], targets: Sequence[int], lengths: Sequence[int]
    ) -> None:
        """The same in few operations, which is what costs where there is no CPU.

        It moves as many positions of every place as of the longest, by way of a copy: on a CPU two
        to five times slower.
        """
        longest = max(lengths)
        from_R, to_R = (
            to_device(torch.tensor(places), self.device) for places in (sources, targets)
        )
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[to_R, :, :, :longest] = keys[from_R, :, :, :longest]
            values[to_R, :, :longest] = values[from_R, :, :longest]

    def clear(self, places: Sequence[int]) -> None:
        """Forget what places hold.

        A diverged adapter's NaN would come through the mask, since 0 times NaN is NaN.
        """
        target = to_device(torch.tensor(places, dtype=torch.long), self.device)
        for values in self.values:
            values[target] = 0
