"""The comparisons that a reader wants, in one order, from the differences that the rows carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seal.report.numbers.model import Difference, Metric, RowKind, ScoreRow


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row minus another, passage by passage."""

    left: str
    right: str
    """Names that are short: `round 2`, `passage only`."""
    kind: RowKind
    """Of the left one."""
    over: Mapping[Metric, Difference]

    @property
    def name(self) -> str:
        """`round 2 − round 1`."""
        return f"{self.left} − {self.right}"


def comparisons(rows: Sequence[ScoreRow]) -> tuple[Comparison, ...]:
    """Passage to base, every round to the passage, to round 0 and to the round before, gold.

    Those that were not measured are left out.
    """
    return tuple(each for each in _wanted(rows) if each.over)


def _wanted(rows: Sequence[ScoreRow]) -> Iterator[Comparison]:
    edits = [row for row in rows if row.kind == "edit"]
    for row in rows:
        if row.kind == "passage":
            yield _comparison(row, "base model", row.over_base)
    for row in edits:
        yield _comparison(row, "passage only", row.over_passage)
    for row in edits:
        yield _comparison(row, "round 0", row.over_first)
    for row in edits:
        if row.round > 1:  # for round 1 it is the comparison with round 0
            yield _comparison(row, f"round {row.round - 1}", row.over_previous)
    for row in rows:
        if row.kind == "gold":
            yield _comparison(row, "passage only", row.over_passage)


def _comparison(row: ScoreRow, right: str, over: Mapping[Metric, Difference]) -> Comparison:
    left = {
        "base": "base model",
        "passage": "passage only",
        "edit": f"round {row.round}",
        "gold": "gold questions",
    }[row.kind]
    return Comparison(left=left, right=right, kind=row.kind, over=over)
