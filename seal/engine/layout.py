"""Where tokens lie: many adapters' rows packed into one sequence of T tokens, hidden states of shape (1, T, d).

Tokens of one slot are contiguous (a *block*). Neighbouring slots whose rows are of like length form a *chunk*: the j-th longest rows of
its slots are padded to one length, so all its blocks are equal, the adapters of all its slots are applied by one batched matrix product
on (slots, block, in), and the j-th rows are a strided view for attention. Nothing is gathered or scattered. Padding lies behind a row's
last token: no real token attends to it, and no gradient comes from it.

A chunk costs small operations in every layer, padding costs tokens in every layer: slots are cut into chunks so that the sum is smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

CHUNK_TOKENS = 64
"""What one more chunk costs, in tokens of padding: 20 to 60 ms a step on 2 cores with a 135M model, where a token costs 1.2 ms."""
MERGED_PADDING = 0.1
"""Rows of one block that are at most this share shorter than the longest of them are padded to it and attended to together."""


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


@dataclass(frozen=True)
class RowChunk:
    """A chunk and the lengths to which its blocks' rows are padded, longest first."""

    chunk: Chunk
    row_lengths: tuple[int, ...]

    @cached_property
    def row_starts(self) -> tuple[int, ...]:
        """Offset of each row in its block."""
        return tuple(sum(self.row_lengths[:place]) for place in range(len(self.row_lengths)))


def make_chunks(rows_G: Sequence[Sequence[int]]) -> tuple[RowChunk, ...]:
    """Cut slots into chunks of least cost. `rows_G` are each slot's row lengths, longest first; slots in falling order of these.

    The least cost of the first n slots is that of the first m plus one chunk of the rest, for the best m.
    """
    total = len(rows_G)
    best: list[tuple[int, int]] = [(0, 0)]
    for stop in range(1, total + 1):
        options: list[tuple[int, int]] = []
        padded: tuple[int, ...] = ()
        for start in range(stop - 1, -1, -1):
            padded = _longest(padded, rows_G[start])
            options.append((best[start][0] + CHUNK_TOKENS + (stop - start) * sum(padded), start))
        best.append(min(options))
    borders = [total]
    while borders[-1]:
        borders.append(best[borders[-1]][1])
    chunks: list[RowChunk] = []
    token_start = 0
    for start, stop in zip(reversed(borders[1:]), reversed(borders[:-1]), strict=True):
        lengths: tuple[int, ...] = ()
        for rows in rows_G[start:stop]:
            lengths = _longest(lengths, rows)
        lengths = _merged(lengths)
        chunks.append(RowChunk(Chunk(start, stop, token_start, sum(lengths)), lengths))
        token_start = chunks[-1].chunk.token_stop
    return tuple(chunks)


def _longest(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Place by place the larger number; what is missing is 0."""
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    return (*map(max, longer, shorter), *longer[len(shorter) :])


def _merged(lengths: Sequence[int]) -> tuple[int, ...]:
    """Lengths, longest first, with those close below another raised to it."""
    merged: list[int] = []
    for length in lengths:
        close = bool(merged) and length >= (1 - MERGED_PADDING) * merged[-1]
        merged.append(merged[-1] if close else length)
    return tuple(merged)
