"""Where tokens lie: many adapters' rows packed into one sequence, cut into chunks of equal blocks.

One forward pass sees a single packed sequence of T tokens, hidden states of shape (1, T, d). Tokens of one slot are contiguous (a *block*).
Neighbouring slots whose blocks are of equal length form a *chunk*; within a chunk the adapters of all slots are applied by one batched
matrix product on (slots, block, in). Sorting slots by their number of tokens keeps the padding at the blocks' ends small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_PADDING = 0.125
"""A chunk takes in the next slot while its padding stays below this share of its tokens."""


@dataclass(frozen=True)
class Chunk:
    """Slots `slot_start` to `slot_stop`, each with a block of `block` tokens from `token_start` on."""

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


def make_chunks(tokens_G: Sequence[int], *, max_padding: float = MAX_PADDING) -> tuple[Chunk, ...]:
    """Cut slots, sorted by falling number of tokens, into chunks whose padding stays below `max_padding`."""
    chunks: list[Chunk] = []
    start, token_start = 0, 0
    while start < len(tokens_G):
        block, stop, real = tokens_G[start], start + 1, tokens_G[start]
        while stop < len(tokens_G) and real + tokens_G[stop] >= (1 - max_padding) * block * (stop + 1 - start):
            real += tokens_G[stop]
            stop += 1
        chunks.append(Chunk(start, stop, token_start, block))
        token_start = chunks[-1].token_stop
        start = stop
    return tuple(chunks)
