"""What a new row need not compute: what another row of its adapter has in the cache.

Samples of one prompt share all of it, questions of one few-shot format share the examples. A row
copies the longest prefix it finds and computes the rest. Rows that come together are cut into
*levels*: a row that copies from another new row runs one level after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SHARED_TOKENS = 8
"""A shorter common prefix of two new rows is computed twice: waiting for a level of its own costs
more."""


@dataclass(frozen=True)
class Prompted:
    """A row's place, its group (rows of one adapter) and its prompt's tokens."""

    place: int
    group: int
    prompt: list[int]


@dataclass(frozen=True)
class Start:
    """How a new row begins."""

    row: int
    """Index into the new rows."""
    source: int
    """Place whose first `shared` positions are copied; the row's own place when nothing is
    shared."""
    shared: int
    """Less than the prompt's length: the last token is always computed, for its logits."""


def plan_starts(running: Sequence[Prompted], new: Sequence[Prompted]) -> list[list[Start]]:
    """Levels of new rows, each to be computed after the one before."""
    known: dict[int, list[tuple[Prompted, int]]] = {}
    for old in running:
        known.setdefault(old.group, []).append((old, -1))
    levels: list[list[Start]] = []
    for index, row in enumerate(new):
        best, source, level = 0, row.place, 0
        mates = known.setdefault(row.group, [])
        for mate, mate_level in mates:
            shared = common_prefix(row.prompt, mate.prompt, at_least=best)
            if shared > best and (shared >= MIN_SHARED_TOKENS or mate_level < 0):
                best, source, level = shared, mate.place, mate_level + 1
        mates.append((row, level))
        levels += [[] for _ in range(level + 1 - len(levels))]
        levels[level].append(Start(index, source, best))
    return levels


def common_prefix(row: list[int], other: list[int], *, at_least: int = 0) -> int:
    """Tokens that both begin with, at most all but one of `row`'s.

    It is 0 if that is no more than `at_least`.
    """
    limit = min(len(row) - 1, len(other))
    if limit <= at_least or row[: at_least + 1] != other[: at_least + 1]:
        return 0
    low, high = at_least + 1, limit
    while low < high:  # the first `low` tokens agree, the first `high + 1` do not
        middle = (low + high + 1) // 2
        if row[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
