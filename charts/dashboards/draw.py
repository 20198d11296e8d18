"""A dashboard as a picture: each panel's questions put to a Prometheus, and drawn.

For the README and for whoever has a Prometheus and no Grafana. What Prometheus does not know is
not drawn, and said beneath: the other panels of its line take its place.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from charts.dashboards.board import Board, Panel, Unit

COLUMNS = 24
POINTS = 240
"""Of a line, at most."""
LEGEND_LINES = 6
"""More series than these are counted, not named."""
LEGEND_COLUMNS = 2
"""Beneath a panel, as Grafana has it: over the curves it would hide some."""
TIMEOUT_SECONDS = 30.0
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Series:
    """One answer of Prometheus."""

    legend: str
    labels: Mapping[str, str]
    times_T: np.ndarray
    """Minutes from the beginning."""
    values_T: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A Prometheus, and the time that is of interest."""

    address: str
    """`http://host:port`."""
    start_seconds: float
    end_seconds: float
    """Unix times."""

    def ask(self, panel: Panel) -> list[Series]:
        """All that a panel shows, in its order. Raises OSError if Prometheus is away."""
        return [
            series
            for query in panel.queries
            for series in self._range(
                query.expr, query.legend or panel.title, only_end="rounds" in panel.kind
            )
        ]

    def _range(self, expr: str, legend: str, *, only_end: bool) -> Iterator[Series]:
        step = max(1, round((self.end_seconds - self.start_seconds) / POINTS))
        question = {
            "query": plain(expr, self.end_seconds - self.start_seconds),
            "start": f"{self.end_seconds if only_end else self.start_seconds:.3f}",
            "end": f"{self.end_seconds:.3f}",
            "step": f"{step}s",
        }
        address = f"{self.address}/api/v1/query_range?{urllib.parse.urlencode(question)}"
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as reply:
            found = json.load(reply)["data"]["result"]
        for one in sorted(found, key=lambda one: sorted(one["metric"].items())):
            points = np.array([(float(time), float(value)) for time, value in one["values"]])
            yield Series(
                _named(legend, one["metric"]),
                one["metric"],
                (points[:, 0] - self.start_seconds) / 60,
                points[:, 1],
            )


def plain(expr: str, range_seconds: float) -> str:
    """The question with all of each variable chosen, and a window of some scrapes."""
    expr = expr.replace("$__rate_interval", "1m").replace(
        "$__range", f"{max(1.0, range_seconds):.0f}s"
    )
    return re.sub(r"\$\w+", ".*", expr)


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip()


def draw(board: Board, prometheus: Prometheus, path: Path) -> list[str]:
    """Draw a dashboard into a file; the titles of its panels without data."""
    matplotlib.rcParams.update({"font.size": 8, "svg.hashsalt": board.uid})
    asked = [[(panel, prometheus.ask(panel)) for panel in line] for line in _lines(board)]
    empty = [panel.title for line in asked for panel, found in line if not found]
    lines = [shown for line in asked if (shown := [one for one in line if one[1]])]
    figure = Figure(figsize=(15, 1.0 + 3.1 * len(lines)), layout="constrained")
    grid = figure.add_gridspec(max(1, len(lines)), 1)
    for number, line in enumerate(lines):
        widths = [panel.columns for panel, _ in line]
        cells = grid[number].subgridspec(1, len(line), width_ratios=widths)
        for place, (panel, found) in enumerate(line):
            _draw_panel(figure.add_subplot(cells[place]), panel, found)
    figure.suptitle(f"{board.title}: {board.description}", fontsize=11)
    if empty:
        figure.supxlabel(f"No data here: {', '.join(empty)}", fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return empty


def _lines(board: Board) -> Iterator[list[Panel]]:
    """Panels that stand beside each other."""
    line: list[Panel] = []
    for panel in board.panels:
        line.append(panel)
        if sum(one.columns for one in line) == COLUMNS:
            yield line
            line = []


def _draw_panel(axes: Axes, panel: Panel, found: Sequence[Series]) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    if panel.kind == "number":
        newest = [(one.legend, worded(float(one.values_T[-1]), panel.unit)) for one in found]
        several = len(newest) > 1
        words = "\n".join(f"{name}: {value}" if several else value for name, value in newest)
        _say(axes, words, size=11 if several else 24)
    elif panel.kind == "map":
        _draw_map(axes, panel, found)
    elif "rounds" in panel.kind:
        _draw_rounds(axes, panel, found)
    else:
        _draw_lines(axes, panel, found)


def _say(axes: Axes, words: str, *, size: float) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=size, transform=axes.transAxes)


def _draw_lines(axes: Axes, panel: Panel, found: Sequence[Series]) -> None:
    beneath: dict[float, float] = {}
    for number, one in enumerate(found):
        values_T, colour = one.values_T, f"C{number % 10}"
        if panel.kind == "stacked":
            below_T = np.array([beneath.get(time, 0.0) for time in one.times_T])
            values_T = below_T + values_T
            beneath |= dict(zip(one.times_T.tolist(), values_T.tolist(), strict=True))
            axes.fill_between(one.times_T, below_T, values_T, alpha=0.35, color=colour)
        single = "o" if len(values_T) == 1 else None
        name = one.legend if number < LEGEND_LINES else None
        axes.plot(one.times_T, values_T, marker=single, lw=1.2, label=name, color=colour)
    if len(found) > LEGEND_LINES:
        axes.plot([], [], " ", label=f"and {len(found) - LEGEND_LINES} more")
    _count_minutes(axes)
    _finish(axes, panel)


def _count_minutes(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))


def _draw_rounds(axes: Axes, panel: Panel, found: Sequence[Series]) -> None:
    rows = sorted({one.labels["row"] for one in found}, key=_row_order)
    columns = sorted({one.labels["column"] for one in found})
    cells = np.full((len(columns), len(rows)), np.nan)
    for one in found:
        place = columns.index(one.labels["column"]), rows.index(one.labels["row"])
        cells[place] = one.values_T[-1]
    places = np.arange(len(rows))
    if "mean" in columns:
        means = cells[columns.index("mean")]
        ends = [cells[columns.index(one)] if one in columns else means for one in ("low", "high")]
        errors = np.abs(np.nan_to_num(np.array(ends) - means))
        axes.errorbar(places, means, yerr=errors, fmt="o-", capsize=4, label="mean, 95 % interval")
    elif panel.kind == "stacked rounds":
        tops = np.zeros(len(rows))
        for column, values in zip(columns, np.nan_to_num(cells), strict=True):
            axes.bar(places, values, bottom=tops, width=0.6, label=column)
            tops = tops + values
    else:
        for column, values in zip(columns, cells, strict=True):
            axes.plot(places, values, "o-", lw=1.2, ms=4, label=column)
    named = ("{}, round {}".format(*_row_order(row)) for row in rows)
    axes.set_xticks(places, list(named), fontsize=7)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    _finish(axes, panel)


def _row_order(row: str) -> tuple[str, int]:
    run, _, round = row.rpartition(" ")
    return run, int(round)


def _finish(axes: Axes, panel: Panel) -> None:
    """An axis that holds 0, in its unit, and the legend."""
    lowest, highest = axes.get_ylim()
    highest = panel.highest or max(0.0, highest)
    axes.set_ylim(min(0.0, lowest), highest + 0.03 * (highest - min(0.0, lowest)))
    if panel.threshold is not None and panel.threshold < axes.get_ylim()[1]:
        axes.axhline(panel.threshold, color="tab:red", ls="--", lw=1, label="its alert")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: worded(value, panel.unit)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(
        fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=LEGEND_COLUMNS, frameon=False
    )


def _draw_map(axes: Axes, panel: Panel, found: Sequence[Series]) -> None:
    times_T = np.unique(np.concatenate([one.times_T for one in found]))
    cells = np.full((len(found), len(times_T)), np.nan)
    for row, one in enumerate(found):
        cells[row, np.searchsorted(times_T, one.times_T)] = one.values_T
    width = times_T[-1] - times_T[0] or 1.0
    extent = (times_T[0], times_T[0] + width, len(found) - 0.5, -0.5)
    shown = axes.imshow(
        cells,
        aspect="auto",
        extent=extent,
        interpolation="nearest",
        cmap="RdYlGn",
        vmin=0,
        vmax=panel.highest,
    )
    axes.set_yticks(range(len(found)), [one.legend for one in found], fontsize=6)
    _count_minutes(axes)
    axes.figure.colorbar(
        shown, ax=axes, format=FuncFormatter(lambda value, _: worded(value, panel.unit))
    )


def worded(value: float, unit: Unit) -> str:
    """A value as an axis has it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    if unit == "s" and abs(value) >= 1000:
        return f"{value:,.0f} s"
    ending = {"s": " s", "bytes": "B", "ops": "/s", "suffix: tok/s": " tok/s"}.get(unit, "")
    for scale, letter in _SCALES if unit != "s" else ():
        if abs(value) >= scale:
            return f"{value / scale:.3g} {letter}{ending.strip()}"
    return f"{value:.3g}{ending}"
