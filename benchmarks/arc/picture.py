"""What policies chose before and after their rounds, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from seal.files import file_errors
from seal.report.numbers.shapes import in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Choices = Mapping[str, Mapping[str, int]]
"""How many edits chose which, by name and value."""
COLUMNS = 4
PANEL_INCHES = (2.3, 1.9)
PALE, INK = "#b8c9da", "#1f4e79"


def draw_choices(before: Choices, after: Choices, file: Path) -> None:
    """A panel for each choice; the same numbers give the same bytes."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    rows = -(-len(before) // COLUMNS)
    with mpl.rc_context({"svg.hashsalt": "seal", "font.size": 8}):
        size = (PANEL_INCHES[0] * COLUMNS, PANEL_INCHES[1] * rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for panel, name in zip(panels, before, strict=False):
            _draw(panel, name, before[name], after.get(name, {}))
        for panel in panels[len(before) :]:
            panel.set_axis_off()
        panels[0].legend(loc="best", fontsize=7)
        with file_errors(file):
            figure.savefig(file, format="svg", metadata={"Date": None})


def _draw(panel: Axes, name: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """The share of edits that chose each value, before the rounds above after them."""
    values = sorted({*before, *after}, key=in_order, reverse=True)
    for counted, offset, colour, label in (
        (before, 0.2, PALE, "before"),
        (after, -0.2, INK, "after"),
    ):
        shares = [100 * counted.get(value, 0) / max(1, sum(counted.values())) for value in values]
        places = [place + offset for place in range(len(values))]
        panel.barh(places, shares, height=0.36, color=colour, label=label)
    panel.set_yticks(range(len(values)), values)
    panel.set_xlim(0, 100)
    panel.set_title(f"{name}, %", fontsize=8)
