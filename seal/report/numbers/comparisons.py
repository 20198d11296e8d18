"""The comparisons that a reader wants, in one order, from the differences that the rows carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seal.report.numbers.model import (
    PASSAGE_KINDS,
    Difference,
    Metric,
    RowKind,
    ScoreRow,
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row minus another, passage by passage."""

    left: str
    right: str
    """Names that are short: `round 2`, `passage alone`."""
    kind: RowKind
    """Of the left one."""
    over: Mapping[Metric, Difference]

    @property
    def name(self) -> str:
        """`round 2 − round 1`."""
        return f"{self.left} − {self.right}"


def comparisons(rows: Sequence[ScoreRow]) -> tuple[Comparison, ...]:
    """Passage to base, every round to the passage, to round 0 and to the round before, gold.

    Of several passage rows it is the better one. What was not measured is left out.
    """
    return tuple(each for each in _wanted(rows) if each.over)


def compared_passage(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    """The passage row that all others are compared with, if one was measured."""
    return next((row for row in rows if row.kind in PASSAGE_KINDS and not row.over_passage), None)


def _wanted(rows: Sequence[ScoreRow]) -> Iterator[Comparison]:
    edits = [row for row in rows if row.kind == "edit"]
    passage = compared_passage(rows)
    base = next((row.short for row in rows if row.kind == "base"), "")
    names = {row.round: row.short for row in edits}
    if passage is not None:
        yield _comparison(passage, base, passage.over_base)
        for row in edits:
            yield _comparison(row, passage.short, row.over_passage)
    if passage is None or passage.kind == "fixed-edit":  # a passage alone lies between the two
        for row in edits:
            yield _comparison(row, base, row.over_base)
    for row in edits:
        yield _comparison(row, names.get(0, ""), row.over_first)
    for row in edits:
        if row.round > 1:  # for round 1 it is the comparison with round 0
            yield _comparison(row, names.get(row.round - 1, ""), row.over_previous)
    for row in rows:
        if passage is not None and row.kind == "gold":
            yield _comparison(row, passage.short, row.over_passage)


def _comparison(row: ScoreRow, right: str, over: Mapping[Metric, Difference]) -> Comparison:
    return Comparison(left=row.short, right=right, kind=row.kind, over=over)
