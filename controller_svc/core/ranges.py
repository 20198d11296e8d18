"""Sets of shard indexes as an Indexed Job writes them: `0,3-5`."""

from __future__ import annotations

from collections.abc import Iterable

from seal.errors import Internal


def parse_ranges(text: str) -> frozenset[int]:
    """The indexes of `0,3-5`; empty for an empty text.

    Raises:
        Internal: it is no such text.

    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        try:
            begin, end = int(first), int(last) if dash else int(first)
        except ValueError:
            raise Internal(f"{text[:80]!r} are no ranges of indexes") from None
        found |= set(range(begin, end + 1))
    return frozenset(found)


def format_ranges(indexes: Iterable[int]) -> str:
    """Indexes as `0,3-5`."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
