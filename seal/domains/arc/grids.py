"""Grids of colours: what is one, its canonical text, and how far two of them agree.

A grid has 1 to 30 rows of 1 to 30 cells, all rows equally long, and a cell is a colour, 0 to 9.
"""

from __future__ import annotations

import json

from seal.dataset_rows import Place

Grid = tuple[tuple[int, ...], ...]
"""Rows from the top, cells from the left."""

MAX_SIDE = 30
COLOURS = 10
_REMEDY = (
    f"give a grid as a list of 1 to {MAX_SIDE} rows of 1 to {MAX_SIDE} cells, all rows equally "
    f"long, each cell a whole number from 0 to {COLOURS - 1}"
)


def read_grid(place: Place, value: object) -> Grid:
    """The grid that a JSON value is.

    Raises InvalidInput naming the row and cell, counted from 1 for people.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SIDE:
        found = f"has {len(value)} rows" if isinstance(value, list) else "is no list of rows"
        raise place.refuse("", f"the grid {found}", _REMEDY)
    return tuple(_row(place, value, index) for index in range(len(value)))


def _row(place: Place, rows: list[object], index: int) -> tuple[int, ...]:
    row, here = rows[index], place.at(f"row {index + 1}", f"[{index}]")
    if not isinstance(row, list) or not 1 <= len(row) <= MAX_SIDE:
        found = f"has {len(row)} cells" if isinstance(row, list) else "is no list of cells"
        raise here.refuse("", f"the row {found}", _REMEDY)
    first = rows[0]
    if isinstance(first, list) and len(row) != len(first):
        problem = f"the row has {len(row)} cells, the first one {len(first)}"
        raise here.refuse("", problem, _REMEDY)
    for column, cell in enumerate(row):
        if type(cell) is not int or not 0 <= cell < COLOURS:
            there = here.at(f"cell {column + 1}", f"[{column}]")
            raise there.refuse("", "the cell is no colour", _REMEDY)
    return tuple(row)


def is_grid(rows: Grid) -> bool:
    """Whether rows of colours are a grid: neither empty nor too large, and rectangular."""
    widths = {len(row) for row in rows}
    return 1 <= len(rows) <= MAX_SIDE and len(widths) == 1 and 1 <= min(widths) <= MAX_SIDE


def grid_text(grid: Grid) -> str:
    """The canonical text of a grid: its rows as JSON without spaces."""
    return json.dumps(grid, separators=(",", ":"))


def grid_of(text: str) -> Grid | None:
    """The grid of a canonical text; None if it is none."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return None
    grid: Grid = tuple(tuple(row) for row in rows)
    colours = all(type(cell) is int and 0 <= cell < COLOURS for row in grid for cell in row)
    return grid if colours and is_grid(grid) else None


def same_shape(one: Grid, other: Grid) -> bool:
    """Whether both have as many rows and columns."""
    return len(one) == len(other) and len(one[0]) == len(other[0])


def equal_cells(one: Grid, other: Grid) -> float:
    """Share of the cells that agree, 0 to 1; 0 for grids of different shapes."""
    if not same_shape(one, other):
        return 0.0
    pairs = [
        (a, b)
        for row, beside in zip(one, other, strict=True)
        for a, b in zip(row, beside, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)
