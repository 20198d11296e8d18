"""The rules of the embedded few-shot tasks; none is on both sides of the corpus.

Most make one row of another: a strip costs few tokens. Kinds stand on both sides, rules do not:
who has learnt to recolour 1 as 2 has not learnt to recolour 2 as 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seal.domains.arc.augmentations import (
    anti_transpose,
    flip_columns,
    flip_rows,
    transpose,
    turn,
    turn_over,
)
from seal.domains.arc.grids import Grid

Row = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """What makes an output of an input, and which inputs show it."""

    name: str
    apply: Callable[[Grid], Grid]
    colours: tuple[int, ...]
    """Cells are drawn from these, and every input has those of `needed`."""
    needed: tuple[int, ...] = ()
    rows: tuple[int, int] = (1, 1)
    """Fewest and most rows."""
    columns: tuple[int, int] = (5, 7)
    """Fewest and most columns."""


def strip(change: Callable[[Row], Row]) -> Callable[[Grid], Grid]:
    """A rule of one row."""
    return lambda grid: (change(grid[0]),)


def cells(change: Callable[[int], int]) -> Callable[[Grid], Grid]:
    """A rule of each cell by itself."""
    return lambda grid: tuple(tuple(change(cell) for cell in row) for row in grid)


def recolour(mapping: dict[int, int]) -> Callable[[Grid], Grid]:
    """Some colours become others."""
    return cells(lambda cell: mapping.get(cell, cell))


def shifted(row: Row, by: int) -> Row:
    """Moved to the right, or to the left; what is left empty is 0."""
    if by > 0:
        return (0,) * by + row[:-by]
    return row[-by:] + (0,) * -by


def between(row: Row, colour: int) -> Row:
    """All between the first and the last cell of a colour becomes it."""
    first, last = row.index(colour), len(row) - 1 - row[::-1].index(colour)
    return row[:first] + (colour,) * (last - first + 1) + row[last + 1 :]


def onwards(row: Row, colour: int) -> Row:
    """All from the first cell of a colour on becomes it."""
    first = row.index(colour)
    return row[:first] + (colour,) * (len(row) - first)


def _only(colour: int) -> Callable[[Grid], Grid]:
    return cells(lambda cell: cell if cell == colour else 0)


def _painted(colour: int) -> Callable[[Grid], Grid]:
    return cells(lambda cell: colour if cell else 0)


def _counted(colour: int) -> Callable[[Grid], Grid]:
    return strip(lambda row: (colour,) * row.count(colour))


TRAIN = (
    Rule("recolour-1-2", recolour({1: 2}), (0, 1, 3), (1,)),
    Rule("recolour-3-7", recolour({3: 7}), (1, 3, 5), (3,)),
    Rule("recolour-in-a-grid", recolour({4: 1}), (0, 4, 6), (4,), (2, 3), (2, 3)),
    Rule("swap-1-2", recolour({1: 2, 2: 1}), (0, 1, 2), (1, 2)),
    Rule("paint-5", _painted(5), (0, 1, 2, 3), (0, 2)),
    Rule("next-colour", cells(lambda cell: cell + 1), (1, 2, 3, 4), (1,)),
    Rule("fill-the-empty-with-4", recolour({0: 4}), (0, 2, 3), (0,)),
    Rule("fill-with-the-first", strip(lambda row: row[:1] * len(row)), (1, 2, 3, 4), (1,)),
    Rule("fill-between", strip(lambda row: between(row, 6)), (0, 0, 0, 6), (6, 6)),
    Rule("keep-3", _only(3), (1, 2, 3), (1, 3)),
    Rule(
        "mask-every-second",
        strip(lambda row: tuple(cell if place % 2 == 0 else 0 for place, cell in enumerate(row))),
        (1, 2, 3),
    ),
    Rule("flip", strip(lambda row: row[::-1]), (1, 2, 3, 4), (), (1, 1), (5, 6)),
    Rule("rotate-left", strip(lambda row: row[1:] + row[:1]), (1, 2, 3, 4), (), (1, 1), (5, 6)),
    Rule("shift-right", strip(lambda row: shifted(row, 1)), (1, 2, 3)),
    Rule("shift-right-by-two", strip(lambda row: shifted(row, 2)), (1, 2, 3)),
    Rule("first-three", strip(lambda row: row[:3]), (1, 2, 3, 4)),
    Rule("ends-in-8", strip(lambda row: (8, *row[1:-1], 8)), (0, 1, 2)),
    Rule(
        "double-every-cell",
        strip(lambda row: tuple(cell for cell in row for _ in range(2))),
        (1, 2, 3, 4),
        (),
        (1, 1),
        (3, 4),
    ),
    Rule(
        "without-the-empty",
        strip(lambda row: tuple(cell for cell in row if cell)),
        (0, 1, 2),
        (0, 1),
    ),
    Rule("count-2", _counted(2), (0, 2, 3), (2, 0)),
    Rule("flip-rows", flip_rows, (0, 1, 2), (1, 2), (3, 3), (3, 3)),
    Rule("transpose", transpose, (0, 1, 2), (1, 2), (3, 3), (3, 3)),
    Rule("turn", turn, (1, 2, 3, 4), (), (2, 2), (2, 2)),
    Rule(
        "bottom-row-6",
        lambda grid: (*grid[:-1], (6,) * len(grid[0])),
        (0, 1, 2),
        (),
        (3, 3),
        (3, 4),
    ),
)
VALIDATION = (
    Rule("recolour-2-6", recolour({2: 6}), (0, 1, 2), (2,)),
    Rule("erase-5", recolour({5: 0}), (2, 3, 5), (5,)),
    Rule("recolour-in-a-grid-3-8", recolour({3: 8}), (0, 2, 3), (3,), (2, 3), (2, 3)),
    Rule("swap-3-4", recolour({3: 4, 4: 3}), (0, 3, 4), (3, 4)),
    Rule("paint-2", _painted(2), (0, 4, 5, 6), (0, 5)),
    Rule("colour-before", cells(lambda cell: cell - 1), (2, 3, 4, 5), (2,)),
    Rule("fill-the-empty-with-7", recolour({0: 7}), (0, 1, 4), (0,)),
    Rule("fill-with-the-last", strip(lambda row: row[-1:] * len(row)), (1, 2, 3, 4), (1,)),
    Rule("fill-onwards", strip(lambda row: onwards(row, 3)), (0, 0, 0, 3), (3,)),
    Rule("keep-1", _only(1), (1, 2, 4), (1, 2)),
    Rule(
        "mask-every-first",
        strip(lambda row: tuple(cell if place % 2 else 0 for place, cell in enumerate(row))),
        (1, 2, 3),
    ),
    Rule("rotate-right", strip(lambda row: row[-1:] + row[:-1]), (1, 2, 3, 4), (), (1, 1), (5, 6)),
    Rule("shift-left", strip(lambda row: shifted(row, -1)), (1, 2, 3)),
    Rule("shift-left-by-two", strip(lambda row: shifted(row, -2)), (1, 2, 3)),
    Rule("last-three", strip(lambda row: row[-3:]), (1, 2, 3, 4)),
    Rule("begins-with-9", strip(lambda row: (9, *row[1:])), (0, 1, 2)),
    Rule("there-and-back", strip(lambda row: row + row[::-1]), (1, 2, 3, 4), (), (1, 1), (3, 4)),
    Rule("count-5", _counted(5), (0, 1, 5), (5, 0)),
    Rule("flip-columns", flip_columns, (0, 1, 2), (1, 2), (3, 3), (3, 3)),
    Rule("anti-transpose", anti_transpose, (0, 1, 2), (1, 2), (3, 3), (3, 3)),
    Rule("turn-over", turn_over, (1, 2, 3, 4), (), (2, 2), (2, 2)),
    Rule("top-row-3", lambda grid: ((3,) * len(grid[0]), *grid[1:]), (0, 1, 2), (), (3, 3), (3, 4)),
)
