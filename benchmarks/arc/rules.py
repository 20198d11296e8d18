"""The rules of the embedded few-shot tasks, and which side of the corpus each is on.

Most make one row of another: a strip costs few tokens. Each kind of rule is dealt in an order of
chance, one to training and one to validation in turn, so that both sides are alike in difficulty.
Kinds stand on both sides, rules do not: who has learnt to recolour 1 as 2 has not learnt to
recolour 2 as 6.
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
from seal.restem.seeds import derive_seed

Row = tuple[int, ...]
STRIP = (4, 5)
"""Fewest and most cells of a row, where a rule says nothing else."""


@dataclass(frozen=True)
class Rule:
    """What makes an output of an input, and which inputs show it.

    Rules of one kind are about equally hard.
    """

    kind: str
    name: str
    apply: Callable[[Grid], Grid]
    colours: tuple[int, ...]
    """Cells are drawn from these, and every input has those of `needed`."""
    needed: tuple[int, ...] = ()
    rows: tuple[int, int] = (1, 1)
    """Fewest and most rows."""
    columns: tuple[int, int] = STRIP
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


def recoloured(old: int, new: int, others: Row, *, grid: bool = False) -> Rule:
    """One colour becomes another."""
    kind = "recolour in a grid" if grid else "recolour"
    sides, widths = ((2, 3), (2, 3)) if grid else ((1, 1), STRIP)
    name = f"{kind.replace(' ', '-')}-{old}-{new}"
    return Rule(kind, name, recolour({old: new}), (old, *others), (old,), sides, widths)


def swapped(one: int, two: int) -> Rule:
    """Two colours take each other's place."""
    change = recolour({one: two, two: one})
    return Rule("swap", f"swap-{one}-{two}", change, (0, one, two), (one, two))


def painted(colour: int, others: Row) -> Rule:
    """All that is not empty becomes one colour."""
    change = cells(lambda cell: colour if cell else 0)
    return Rule("paint", f"paint-{colour}", change, (0, *others), (0, others[0]))


def counted_up(by: int, name: str) -> Rule:
    """Every colour becomes the one so many after it."""
    return Rule("next colour", name, cells(lambda cell: cell + by), (3, 4, 5, 6), (3,))


def filled(colour: int, others: Row) -> Rule:
    """All that is empty becomes one colour."""
    name = f"fill-the-empty-with-{colour}"
    return Rule("fill the empty", name, recolour({0: colour}), (0, *others), (0,))


def kept(colour: int, others: Row) -> Rule:
    """All but one colour becomes empty."""
    change = cells(lambda cell: cell if cell == colour else 0)
    return Rule("keep", f"keep-{colour}", change, (colour, *others), (colour, others[0]))


def masked(rest: int, name: str) -> Rule:
    """Every second cell becomes empty."""
    return Rule(
        "mask",
        name,
        strip(lambda row: tuple(cell if at % 2 == rest else 0 for at, cell in enumerate(row))),
        (1, 2, 3),
    )


def ended(name: str, before: Row, after: Row) -> Rule:
    """Cells at the ends are painted over; an empty row leaves an end as it is."""
    return Rule(
        "paint the ends",
        name,
        strip(lambda row: (*before, *row[len(before) : len(row) - len(after)], *after)),
        (0, 1, 2),
    )


def added(name: str, before: Row, after: Row) -> Rule:
    """Cells are put before the row and after it."""
    return Rule("add cells", name, strip(lambda row: (*before, *row, *after)), (1, 2, 3, 4))


def of_row(
    kind: str, name: str, change: Callable[[Row], Row], columns: tuple[int, int] = STRIP
) -> Rule:
    """A rule of places alone: cells of four colours are moved, left out or repeated."""
    return Rule(kind, name, strip(change), (1, 2, 3, 4), (), (1, 1), columns)


def marked(
    name: str,
    fill: Callable[[Row, int], Row],
    colour: int,
    *,
    marks: int,
    columns: tuple[int, int] = STRIP,
) -> Rule:
    """A stretch of an empty row becomes the colour of the cells that mark it."""
    return Rule(
        "fill",
        f"{name}-{colour}",
        strip(lambda row: fill(row, colour)),
        (0, 0, 0, colour),
        (colour,) * marks,
        columns=columns,
    )


def counted(colour: int, other: int) -> Rule:
    """What is left of the row are its cells of one colour."""
    return Rule(
        "count",
        f"count-{colour}",
        strip(lambda row: (colour,) * row.count(colour)),
        (0, colour, other),
        (colour, 0),
    )


def moved(name: str, change: Callable[[Grid], Grid], side: int) -> Rule:
    """A square is turned or flipped."""
    colours = (1, 2, 3, 4) if side == 2 else (0, 1, 2)
    return Rule("turn or flip", name, change, colours, (1, 2), (side, side), (side, side))


def lined(name: str, change: Callable[[Grid], Grid]) -> Rule:
    """A row or a column of a grid becomes one colour."""
    return Rule("paint a line", name, change, (0, 1, 2), (), (2, 3), (3, 3))


RULES = (
    recoloured(1, 2, (0, 3)),
    recoloured(3, 7, (1, 5)),
    recoloured(2, 6, (0, 1)),
    recoloured(5, 0, (2, 3)),
    recoloured(8, 4, (0, 9)),
    recoloured(6, 1, (3, 4)),
    recoloured(4, 9, (0, 7)),
    recoloured(7, 5, (2, 8)),
    recoloured(4, 1, (0, 6), grid=True),
    recoloured(3, 8, (0, 2), grid=True),
    recoloured(1, 7, (0, 5), grid=True),
    recoloured(9, 2, (0, 3), grid=True),
    swapped(1, 2),
    swapped(3, 4),
    swapped(5, 8),
    swapped(6, 9),
    painted(5, (1, 2, 3)),
    painted(2, (4, 5, 6)),
    painted(8, (1, 3, 7)),
    painted(1, (5, 6, 9)),
    counted_up(1, "next-colour"),
    counted_up(-1, "colour-before"),
    counted_up(2, "next-colour-but-one"),
    counted_up(-2, "colour-before-but-one"),
    filled(4, (2, 3)),
    filled(7, (1, 4)),
    filled(9, (4, 5)),
    filled(1, (3, 8)),
    kept(3, (1, 2)),
    kept(1, (2, 4)),
    kept(6, (5, 7)),
    kept(8, (3, 9)),
    masked(0, "mask-every-second"),
    masked(1, "mask-every-first"),
    ended("ends-in-8", (8,), (8,)),
    ended("begins-with-9", (9,), ()),
    ended("last-becomes-4", (), (4,)),
    ended("begins-with-7-and-5", (7, 5), ()),
    added("3-before", (3,), ()),
    added("5-after", (), (5,)),
    added("6-on-both-sides", (6,), (6,)),
    added("7-and-8-after", (), (7, 8)),
    of_row("crop", "first-three", lambda row: row[:3]),
    of_row("crop", "last-three", lambda row: row[-3:]),
    of_row("crop", "without-the-first", lambda row: row[1:]),
    of_row("crop", "without-the-last", lambda row: row[:-1]),
    of_row("shift", "shift-right", lambda row: shifted(row, 1)),
    of_row("shift", "shift-left", lambda row: shifted(row, -1)),
    of_row("shift", "shift-right-by-two", lambda row: shifted(row, 2)),
    of_row("shift", "shift-left-by-two", lambda row: shifted(row, -2)),
    of_row("rotate", "rotate-left", lambda row: row[1:] + row[:1]),
    of_row("rotate", "rotate-right", lambda row: row[-1:] + row[:-1]),
    of_row("repeat", "fill-with-the-first", lambda row: row[:1] * len(row)),
    of_row("repeat", "fill-with-the-last", lambda row: row[-1:] * len(row)),
    of_row("repeat", "twice", lambda row: row * 2, (3, 4)),
    of_row("repeat", "there-and-back", lambda row: row + row[::-1], (3, 4)),
    marked("fill-between", between, 6, marks=2, columns=(6, 6)),
    marked("fill-between", between, 2, marks=2, columns=(6, 6)),
    marked("fill-onwards", onwards, 3, marks=1),
    marked("fill-onwards", onwards, 8, marks=1),
    counted(2, 3),
    counted(5, 1),
    moved("flip-rows", flip_rows, 3),
    moved("flip-columns", flip_columns, 3),
    moved("transpose", transpose, 3),
    moved("anti-transpose", anti_transpose, 3),
    moved("turn", turn, 2),
    moved("turn-over", turn_over, 2),
    lined("top-row-3", lambda grid: ((3,) * len(grid[0]), *grid[1:])),
    lined("bottom-row-6", lambda grid: (*grid[:-1], (6,) * len(grid[0]))),
    lined("first-column-5", lambda grid: tuple((5, *row[1:]) for row in grid)),
    lined("last-column-4", lambda grid: tuple((*row[:-1], 4) for row in grid)),
)
_DEALT = sorted(RULES, key=lambda rule: (rule.kind, derive_seed("few-shot corpus", rule.name)))
TRAIN, VALIDATION = tuple(_DEALT[::2]), tuple(_DEALT[1::2])
