"""Grids and tasks of chance, for properties of the few-shot domain."""

from __future__ import annotations

from hypothesis import strategies as st

from seal.domains.arc.grids import Grid
from seal.domains.arc.tasks import Pair


@st.composite
def grids(draw: st.DrawFn, *, max_side: int = 6) -> Grid:
    """A grid of at most so many rows and columns."""
    rows, columns = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    cells = st.integers(0, 9)
    return tuple(tuple(draw(cells) for _ in range(columns)) for _ in range(rows))


GRIDS = grids()
PAIRS = st.lists(st.builds(Pair, grids(max_side=3), grids(max_side=3)), min_size=1, max_size=4)
