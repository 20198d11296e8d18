"""Ways to change a task that leave its rule one to be learnt, each with its way back.

An augmentation changes every grid of a task alike, inputs and outputs. `undo` is its inverse on
whatever `apply` makes, and None for a grid that it cannot have made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from seal.domains.arc.grids import COLOURS, MAX_SIDE, Grid, is_grid


@dataclass(frozen=True)
class Augmentation:
    """A change of grids that can be taken back."""

    name: str
    apply: Callable[[Grid], Grid]
    undo: Callable[[Grid], Grid | None]


def transpose(grid: Grid) -> Grid:
    """Rows become columns."""
    return tuple(zip(*grid, strict=True))


def flip_rows(grid: Grid) -> Grid:
    """Upside down."""
    return grid[::-1]


def flip_columns(grid: Grid) -> Grid:
    """Left and right change places."""
    return tuple(row[::-1] for row in grid)


def turn(grid: Grid) -> Grid:
    """A quarter to the right."""
    return transpose(flip_rows(grid))


def turn_back(grid: Grid) -> Grid:
    """A quarter to the left."""
    return flip_rows(transpose(grid))


def turn_over(grid: Grid) -> Grid:
    """Half a turn."""
    return flip_rows(flip_columns(grid))


def anti_transpose(grid: Grid) -> Grid:
    """Mirrored at the other diagonal."""
    return turn_over(transpose(grid))


GEOMETRIES = (
    Augmentation("turn", turn, turn_back),
    Augmentation("turn-over", turn_over, turn_over),
    Augmentation("turn-back", turn_back, turn),
    Augmentation("flip-rows", flip_rows, flip_rows),
    Augmentation("flip-columns", flip_columns, flip_columns),
    Augmentation("transpose", transpose, transpose),
    Augmentation("anti-transpose", anti_transpose, anti_transpose),
)
"""All symmetries of a square but the one that changes nothing."""


def scaled(rows: int, columns: int) -> Augmentation:
    """Every cell becomes a block of `rows` by `columns` cells."""

    def apply(grid: Grid) -> Grid:
        wide = [tuple(cell for cell in row for _ in range(columns)) for row in grid]
        return tuple(row for row in wide for _ in range(rows))

    def undo(grid: Grid) -> Grid | None:
        small = tuple(row[::columns] for row in grid[::rows])
        return small if apply(small) == grid else None

    return Augmentation(f"scaled-{rows}x{columns}", apply, undo)


def repeated(rows: int, columns: int) -> Augmentation:
    """The grid beside itself: `rows` copies downwards, `columns` to the right."""

    def apply(grid: Grid) -> Grid:
        return tuple(row * columns for row in grid) * rows

    def undo(grid: Grid) -> Grid | None:
        small = tuple(row[: len(row) // columns] for row in grid[: len(grid) // rows])
        return small if is_grid(small) and apply(small) == grid else None

    return Augmentation(f"repeated-{rows}x{columns}", apply, undo)


def chain(first: Augmentation, then: Augmentation) -> Augmentation:
    """One change after another."""

    def undo(grid: Grid) -> Grid | None:
        between = then.undo(grid)
        return None if between is None else first.undo(between)

    return Augmentation(
        f"{first.name}+{then.name}", lambda grid: then.apply(first.apply(grid)), undo
    )


def recoloured(permutation: Sequence[int]) -> Augmentation:
    """Every colour becomes another: `permutation[colour]`."""
    back = {colour: old for old, colour in enumerate(permutation)}
    return Augmentation(
        "recoloured",
        lambda grid: tuple(tuple(permutation[cell] for cell in row) for row in grid),
        lambda grid: tuple(tuple(back[cell] for cell in row) for row in grid),
    )


def drawn_colours(random: Random, *, keep_background: bool = True) -> Augmentation:
    """A permutation of the colours; 0, which most tasks take for the ground, stays by default."""
    moved = list(range(1 if keep_background else 0, COLOURS))
    random.shuffle(moved)
    return recoloured([0, *moved] if keep_background else moved)


SIZES = (scaled(2, 2), scaled(2, 1), scaled(1, 2))
REPEATS = (repeated(2, 2), repeated(2, 1), repeated(1, 2))
CHAINS = tuple(chain(geometry, SIZES[0]) for geometry in GEOMETRIES)


def fits(grids: Sequence[Grid]) -> bool:
    """Whether all are still grids: a change of size may have made one too large."""
    return all(len(grid) <= MAX_SIDE and len(grid[0]) <= MAX_SIDE for grid in grids)
