"""The figures, as inline SVG.

Every distinction is made by shape, hatch or line style first; colour only repeats it, and is taken
from the page's style sheet, so that figures are dark where the page is. This is the only module of
the project that imports matplotlib. No pyplot: no global state, no display.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seal.report.numbers.comparisons import Comparison
from seal.report.numbers.formats import MEASURE_NAMES
from seal.report.numbers.model import (
    Bin,
    EditShape,
    Estimate,
    Metric,
    RetainedRow,
    RolloutReport,
    RowKind,
)
from seal.report.numbers.shapes import in_order
from seal.report.page.markup import Html, text

INK = "#1b1b1b"
ACCENT = "#1f4e79"
PALE = "#d9e2ec"
PAPER = "#ffffff"
GRID = "#c9c9c9"
_THEME = {INK: "ink", ACCENT: "accent", PALE: "fill", PAPER: "paper", GRID: "grid"}
"""Colours that the style sheet names, by what matplotlib writes."""
WIDTH_INCHES = 8.6
CHOICES_IN_A_ROW = 3
LEAST_EXTENT = 10.0
"""Percentage points that an axis shows at least: a difference of nothing is not blown up."""

_MARKERS: dict[RowKind, tuple[str, str]] = {
    "base": ("o", PAPER),
    "passage": ("s", PALE),
    "passage-equal-steps": ("s", PALE),
    "edit": ("D", ACCENT),
    "gold": ("^", PAPER),
    "open-book": ("v", PAPER),
    "fixed-edit": ("s", PALE),
    "oracle-edit": ("^", PAPER),
}
"""Marker and fill by kind of row."""
_STYLE: Any = {  # matplotlib's own type for it is a literal of all its settings
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}


def differences_figure(compared: Sequence[Comparison], measures: Sequence[Metric]) -> Html:
    """Paired differences with their intervals, in percentage points, a panel for each measure."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 0.36 * len(compared) + 0.9), layout="constrained")
        panels = figure.subplots(1, len(measures), sharex=True, sharey=True)
        for axes, measure in zip(panels, measures, strict=True):
            _whiskers(axes, [(each.name, each.over[measure], each.kind) for each in compared])
            axes.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.set_title(f"{MEASURE_NAMES[measure]}, points")
        return _svg(
            figure,
            "differences",
            f"{len(compared)} paired differences with 95 % intervals; the table below has the "
            "numbers",
        )


def _whiskers(axes: Axes, points: Sequence[tuple[str, Estimate, RowKind]]) -> None:
    """One horizontal interval per line, the first on top, in per cent."""
    for place, (_, estimate, kind) in enumerate(points):
        if estimate.mean is None:
            axes.annotate(
                "no score",
                (0.5, place),
                xycoords=("axes fraction", "data"),
                va="center",
                ha="center",
                fontstyle="italic",
            )
            continue
        if estimate.low is not None and estimate.high is not None:
            axes.plot(
                [100 * estimate.low, 100 * estimate.high],
                [place, place],
                color=INK,
                linewidth=1.4,
                marker="|",
                markersize=7,
            )
        marker, fill = _MARKERS[kind]
        axes.plot(
            100 * estimate.mean,
            place,
            marker=marker,
            markersize=8,
            markerfacecolor=fill,
            markeredgecolor=INK,
            linestyle="none",
        )
    axes.set_yticks(range(len(points)), [label for label, _, _ in points])
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    if high - low < LEAST_EXTENT:
        axes.set_xlim((low + high - LEAST_EXTENT) / 2, (low + high + LEAST_EXTENT) / 2)


def rewards_figure(rollouts: Sequence[RolloutReport], *, grader: str) -> Html:
    """Histograms of reward and gain, one column per round.

    Kept candidates solid, the rest hatched.
    """
    with mpl.rc_context(_STYLE):
        columns = max(2, len(rollouts))
        figure = Figure(figsize=(WIDTH_INCHES, 4.6), layout="constrained")
        grid = figure.subplots(2, columns, sharex="row", sharey="row", squeeze=False)
        for spare in grid[:, len(rollouts) :].flat:
            spare.set_visible(False)
        for column, rollout in enumerate(rollouts):
            _bars(grid[0, column], rollout.rewards)
            if rollout.baseline.mean is not None:
                grid[0, column].axvline(
                    rollout.baseline.mean,
                    color=INK,
                    linewidth=1.2,
                    linestyle=(0, (4, 3)),
                    label="before, mean",
                )
            grid[0, column].set_title(f"round {rollout.round}: reward ({grader})")
            _bars(grid[1, column], rollout.gains)
            grid[1, column].axvline(0, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            grid[1, column].set_title(f"round {rollout.round}: gain over before")
        grid[0, 0].set_ylabel("candidates")
        grid[1, 0].set_ylabel("candidates")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
        return _svg(
            figure,
            "rewards",
            f"histograms of reward and gain of the candidates of {len(rollouts)} rounds",
        )


def _bars(axes: Axes, bins: Sequence[Bin]) -> None:
    """Stacked bars of kept and dropped candidates."""
    places = [each.low for each in bins]
    widths = [each.high - each.low for each in bins]
    kept = [each.kept for each in bins]
    axes.bar(
        places, kept, widths, align="edge", color=ACCENT, edgecolor=INK, linewidth=0.8, label="kept"
    )
    dropped = [each.dropped for each in bins]
    axes.bar(
        places,
        dropped,
        widths,
        bottom=kept,
        align="edge",
        color=PAPER,
        edgecolor=INK,
        linewidth=0.8,
        hatch="////",
        label="dropped",
    )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.6)


def shapes_figure(shapes: Sequence[EditShape], *, context: str) -> Html:
    """Length of the edits and their diversity, stage by stage.

    Boxes are quartiles, whiskers extremes, diamonds means. `context`: what the domain calls one.
    """
    labels = [f"r{shape.round} {shape.stage}" for shape in shapes]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        boxes = [(place, shape.tokens) for place, shape in enumerate(shapes) if shape.tokens]
        left.bxp(
            [
                {
                    "whislo": spread.minimum,
                    "q1": spread.lower_quartile,
                    "med": spread.median,
                    "q3": spread.upper_quartile,
                    "whishi": spread.maximum,
                    "mean": spread.mean,
                }
                for _, spread in boxes
            ],
            positions=[place for place, _ in boxes],
            widths=0.5,
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            boxprops={"facecolor": PALE, "edgecolor": INK},
            medianprops={"color": INK, "linewidth": 1.6},
            whiskerprops={"color": INK},
            capprops={"color": INK},
            meanprops={
                "marker": "D",
                "markerfacecolor": ACCENT,
                "markeredgecolor": INK,
                "markersize": 6,
            },
        )
        left.set_title("tokens per edit")
        left.set_ylim(bottom=0)
        _diversity(right, shapes, context)
        for axes in (left, right):
            axes.set_xticks(range(len(shapes)), labels, rotation=30, ha="right")
            axes.set_xlim(-0.6, len(shapes) - 0.4)
            axes.grid(axis="y", color=GRID, linewidth=0.6)
        return _svg(
            figure,
            "edits",
            "length and diversity of the edits by stage; the table below has the numbers",
        )


def choices_figure(before: EditShape, after: EditShape) -> Html:
    """What edits chose before the rounds and after them, a panel for each choice."""
    names = list(dict.fromkeys([*before.choices, *after.choices]))
    rows = -(-len(names) // CHOICES_IN_A_ROW)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 1.9 * rows + 0.4), layout="constrained")
        panels = figure.subplots(rows, CHOICES_IN_A_ROW, squeeze=False).flat
        for axes, name in zip(panels, names, strict=False):
            _choice(axes, name, before.choices.get(name, {}), after.choices.get(name, {}))
        for axes in list(figure.axes)[len(names) :]:
            axes.set_axis_off()
        figure.axes[0].legend(loc="lower right", fontsize=8)
        return _svg(
            figure,
            "choices",
            f"what edits chose before and after the rounds, {len(names)} choices; the table below "
            "has the numbers",
        )


def _choice(axes: Axes, name: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Bars of the share of edits that chose each value, before the rounds above after them."""
    values = sorted({*before, *after}, key=in_order)
    looks = ((before, 0.2, PALE, "before"), (after, -0.2, ACCENT, "after"))
    for counted, offset, colour, label in looks:
        total = max(1, sum(counted.values()))
        axes.barh(
            [place + offset for place in range(len(values))],
            [100 * counted.get(value, 0) / total for value in values],
            height=0.36,
            color=colour,
            edgecolor=INK,
            linewidth=0.8,
            hatch="" if label == "after" else "///",
            label=label,
        )
    axes.set_yticks(range(len(values)), values)
    axes.set_xlim(0, 100)
    axes.set_title(f"{name}, %")


def _diversity(axes: Axes, shapes: Sequence[EditShape], context: str) -> None:
    """Four shares, each with a marker and a line style of its own.

    Lines join stages of one kind: only these sample alike.
    """
    lines = (
        ("different texts", [shape.unique_share for shape in shapes], "o", "-"),
        (
            "different word pairs of all edits",
            [shape.distinct_pairs_share for shape in shapes],
            "s",
            "--",
        ),
        (f"distance within a {context}", [shape.diversity for shape in shapes], "^", ":"),
        ("empty edits", [shape.empty / shape.edits for shape in shapes], "x", "-."),
    )
    for label, values, marker, line in lines:
        for stage in ("rollout", "validate"):
            places = [
                place
                for place, shape in enumerate(shapes)
                if shape.stage == stage and values[place] is not None
            ]
            shares = [100 * (values[place] or 0.0) for place in places]
            axes.plot(
                places,
                shares,
                marker=marker,
                linestyle=line,
                color=INK,
                markerfacecolor=PAPER,
                markersize=7,
                linewidth=1.2,
            )
        axes.plot(
            [],
            [],
            marker=marker,
            linestyle=line,
            color=INK,
            markerfacecolor=PAPER,
            markersize=7,
            linewidth=1.2,
            label=label,
        )
    axes.set_title("diversity, %")
    axes.set_ylim(-4, 104)
    axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)


def retained_figure(rows: Sequence[RetainedRow]) -> Html:
    """Open-book accuracy of policies alone and of adapted models, in per cent."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 0.42 * len(rows) + 0.9), layout="constrained")
        axes = figure.subplots()
        _whiskers(axes, [(row.label, row.accuracy, _retained_kind(row)) for row in rows])
        axes.set_title("open-book accuracy on other passages, %")
        return _svg(
            figure,
            "retained",
            "open-book accuracy on the retained set with 95 % intervals; the table below has the "
            "numbers",
        )


def _retained_kind(row: RetainedRow) -> RowKind:
    if row.policy_alone:
        return "base"
    return (
        "edit"
        if row.key.startswith("edit")
        else "gold"
        if row.key.startswith("gold")
        else "passage"
    )


def _svg(figure: Figure, name: str, description: str) -> Html:
    """The figure as an element that scales with the page, its ids unique there.

    The same numbers give the same bytes.
    """
    buffer = io.StringIO()
    salt: Any = {"svg.hashsalt": name}
    with mpl.rc_context(salt):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var(--{variable})")
    opening = re.sub(
        r'\b(?:width|height|xmlns:xlink|version)="[^"]*"\s*', "", svg[: svg.index(">")]
    )
    opening = opening.replace(
        "<svg",
        f'<svg role="img" aria-label="{text(description)}" '
        f'style="max-width:{figure.get_figwidth():g}in"',
        1,
    )
    return Html(opening.replace("\n", " ") + svg[svg.index(">") :].replace("xlink:href", "href"))
