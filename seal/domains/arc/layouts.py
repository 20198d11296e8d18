"""Grids as a model reads and writes them, in one of three layouts; rows stand one below another.

    digits     0123456789         one token a cell where digits are split (SmolLM2, Qwen)
    letters    a b c d            one token a cell in most tokenizers: a word of one letter
    spaced     0 1 2 3            a token a cell and one between cells: for any tokenizer

In `letters` every cell begins with its space, also the first of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from seal.domains.arc.grids import COLOURS, Grid, is_grid
from seal.errors import InvalidInput


@dataclass(frozen=True)
class Layout:
    """How the cells of a row are written; rows stand one below another."""

    cells: tuple[str, ...]
    """The text of each colour."""
    between: str
    """What stands between two cells of a row."""
    one_token: bool
    """Whether a cell is meant to cost one token and nothing beside it."""


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "digits": Layout(tuple(map(str, range(COLOURS))), "", one_token=True),
        "letters": Layout(tuple(f" {letter}" for letter in "abcdefghij"), "", one_token=True),
        "spaced": Layout(tuple(map(str, range(COLOURS))), " ", one_token=False),
    }
)


def layout_of(name: str) -> Layout:
    """The layout of that name. Raises InvalidInput."""
    if name not in LAYOUTS:
        raise InvalidInput(
            f"{name!r} is no layout of grids",
            field="evaluation.questionFormat",
            remedy="use one of: " + ", ".join(LAYOUTS),
        )
    return LAYOUTS[name]


def written(grid: Grid, layout: Layout) -> str:
    """A grid in a layout, without a line break at its end."""
    return "\n".join(layout.between.join(layout.cells[cell] for cell in row) for row in grid)


def grid_in(text: str, layout: Layout) -> Grid | None:
    """The grid at the start of what a model wrote, up to an empty line; None if that is none."""
    lines = [line.strip() for line in text.strip().split("\n")]
    if "" in lines:
        lines = lines[: lines.index("")]
    colours = {cell.strip(): colour for colour, cell in enumerate(layout.cells)}
    apart = any(cell != cell.strip() for cell in layout.cells) or bool(layout.between)
    rows = []
    for line in lines:
        cells = line.split(" ") if apart else list(line)
        if not all(cell in colours for cell in cells):
            return None
        rows.append(tuple(colours[cell] for cell in cells))
    return tuple(rows) if is_grid(tuple(rows)) else None
