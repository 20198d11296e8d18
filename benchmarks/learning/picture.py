"""docs/learning.svg: what each arm's answers are worth, a panel for each corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl

from benchmarks.learning.figures import ROWS, CorpusFigures, Measured
from benchmarks.learning.plan import CorpusName
from seal.files import file_errors
from seal.report.numbers.model import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES, LABELS_INCHES, LINE_INCHES = 3.6, 3.4, 0.34
Fill = Literal["full", "none"]
DRAWN: tuple[tuple[Metric, str, Fill, float], ...] = (
    ("f1", "token F1", "full", -0.14),
    ("exact", "exact match", "none", 0.14),
)
"""Measure, its name, how its dot is filled, and how far below its line's middle it is."""
TITLES: dict[CorpusName, str] = {
    "validation": "embedded corpus",
    "natural": "natural text",
}
INK, SUPERVISED = "#1f4e79", "#b5651d"


def draw_picture(figures: Sequence[CorpusFigures], file: Path) -> None:
    """Dots with their 95 % intervals over passages; the same figures give the same bytes."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    keys = [key for key in ROWS if any(key in one.rows for one in figures)]
    with mpl.rc_context(
        {"svg.hashsalt": "seal", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        size = (LABELS_INCHES + PANEL_INCHES * len(figures), LINE_INCHES * len(keys) + 1.1)
        canvas = Figure(figsize=size, layout="constrained")
        panels = canvas.subplots(1, len(figures), squeeze=False, sharey=True)[0]
        for one, panel in zip(figures, panels, strict=True):
            _draw_panel(panel, one, keys)
        panels[0].set_yticks(range(len(keys)), [ROWS[key].words for key in keys])
        panels[0].set_ylim(len(keys) - 0.5, -0.5)
        _draw_legend(canvas)
        with file_errors(file):
            canvas.savefig(file, format="svg", metadata={"Date": None})


def _draw_panel(panel: Axes, figures: CorpusFigures, keys: Sequence[str]) -> None:
    for measure, _, fill, offset in DRAWN:
        for place, key in enumerate(keys):
            if (found := figures.rows.get(key, {}).get(measure)) is not None:
                _draw_dot(panel, found, place + offset, fill, supervised=ROWS[key].supervised)
    panel.set_title(TITLES[figures.corpus], fontsize=10)
    panel.set_xlabel("mean over passages, 95 % interval")
    panel.set_xlim(left=0)


def _draw_legend(canvas: Figure) -> None:
    """Below the panels: inside one it would cover dots."""
    from matplotlib.lines import Line2D

    entries: list[tuple[str, str, Fill]] = [(name, INK, fill) for _, name, fill, _ in DRAWN]
    entries.append(("trained with gold pairs", SUPERVISED, "full"))
    canvas.legend(
        handles=[
            Line2D([], [], marker="o", linestyle="none", color=colour, fillstyle=fill, label=name)
            for name, colour, fill in entries
        ],
        loc="outside lower center",
        ncols=len(entries),
        fontsize=8,
    )


def _draw_dot(panel: Axes, found: Measured, y: float, fill: Fill, *, supervised: bool) -> None:
    colour, interval = SUPERVISED if supervised else INK, found.over_passages
    if interval.low is not None and interval.high is not None:
        panel.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.2)
    panel.plot(
        [interval.mean],
        [y],
        marker="o",
        markersize=5,
        color=colour,
        fillstyle=fill,
        markerfacecoloralt="white",
    )
