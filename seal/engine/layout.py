"""Where tokens lie.

Many adapters' rows packed into one sequence of T tokens, hidden states of shape (1, T, d). Tokens
of one slot are contiguous (a *block*), its rows one behind another. Neighbouring slots with about
as many tokens form a *chunk*: their blocks are padded to one size, so the adapters of all its slots
are applied by one batched matrix product on (slots, block, in). Nothing is gathered or scattered.
Padding lies behind a block's last row: no token attends to it, and no gradient comes from it.

A chunk costs small operations in every layer, padding costs tokens in every layer: slots are cut
into chunks so that the sum is smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_CHUNK_TOKENS = 64
"""What one more chunk costs at most, in tokens of padding."""


@dataclass(frozen=True)
class Chunk:
    """Slots `slot_start` to `slot_stop`, each a block of `block` tokens from `token_start` on."""

    slot_start: int
    slot_stop: int
    token_start: int
    block: int

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.slot_stop - self.slot_start

    @property
    def token_stop(self) -> int:
        """First token after the chunk."""
        return self.token_start + self.slots * self.block


def make_chunks(tokens_G: Sequence[int], *, chunk_tokens: float) -> tuple[Chunk, ...]:
    """Cut slots into chunks of least cost.

    `tokens_G` are the slots' tokens in falling order, `chunk_tokens` is what a chunk costs, in
    tokens of padding.
    """
    chunks: list[Chunk] = []
    for start, stop in cheapest_cut(
        len(tokens_G), lambda start, stop: chunk_tokens + (stop - start) * tokens_G[start]
    ):
        chunks.append(Chunk(start, stop, chunks[-1].token_stop if chunks else 0, tokens_G[start]))
    return tuple(chunks)


def cheapest_cut(count: int, cost: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Cut 0 .. count into pieces (start, stop) with the smallest sum of `cost(start, stop)`.

    The least cost of the first n is that of the first m plus one piece of the rest, for the best m.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, count + 1):
        best.append(min((best[start][0] + cost(start, stop), start) for start in range(stop)))
    borders = [count]
    while borders[-1]:
        borders.append(best[borders[-1]][1])
    return list(zip(reversed(borders[1:]), reversed(borders[:-1]), strict=True))
