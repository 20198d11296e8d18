"""docs/benchmarks.md and its plot, made from the figures alone, with hand-written notes laid in.

`benchmarks/notes.md` has a heading `## KEY` per figure (`## P3`, `## slots`; `## about` stands
under the table). Its text, profiles and reasons for shortfalls, survives a rerun.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.figures import CURVES, GOALS, KEYS, Figure, Figures, in_order
from seal.errors import InvalidInput
from seal.files import file_errors

ABOUT = "about"
PLOT_FILE = "benchmarks.svg"
MANY_CURVES = 4
"""With more of them, the legend stands beside the panel, which gets twice the room: inside, it
would cover them."""
_HEADING = re.compile(r"^## +(\S+) *$", re.MULTILINE)
_INTRODUCTION = """# Benchmarks

Made by `make bench`, and by `python -m benchmarks.run --only NAME` for what takes long; edit the \
notes in `benchmarks/` and the code,
not this file. Most figures are ratios of two sides that took turns on one machine, or shares of \
what it was measured to reach meanwhile;
what each side does, and the command, stand with each. `--edits` and `--squad` name a reward log \
and passages in the published system's
formats; without them edits are derived from the embedded corpus. Numbers \
with all samples: [benchmarks.json](benchmarks.json).
"""


def read_notes(file: Path) -> dict[str, str]:
    """Notes by figure. Raises InvalidInput for a heading that is no figure.

    Its text would be shown nowhere.
    """
    with file_errors(file):
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    parts = _HEADING.split(text)[1:]
    notes = {key: body.strip() for key, body in zip(parts[::2], parts[1::2], strict=True)}
    if unknown := sorted(set(notes) - {*KEYS, ABOUT}):
        raise InvalidInput(
            f"{file}: heading {unknown[0]!r} is no figure",
            remedy="use one of: " + ", ".join((ABOUT, *KEYS)),
        )
    return {key: body for key, body in notes.items() if body}


def render_markdown(figures: Figures, notes: Mapping[str, str], methods: Sequence[str] = ()) -> str:
    """The whole page. `methods`: what was done, one text per group of figures."""
    parts = [_INTRODUCTION, render_table(figures)]
    parts += _shared(figures)
    if ABOUT in notes:
        parts.append(notes[ABOUT])
    if any(figure.curves for figure in figures.values()):
        parts.append(f"![Curves over slots, row length and memory]({PLOT_FILE})")
    parts += [
        _section(key, figures[key], notes.get(key, ""), _source(figures[key], figures))
        for key in in_order(figures)
    ]
    if methods:
        parts += ["## How each figure is measured", *methods]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render_table(figures: Figures) -> str:
    """One row per figure that has a goal; a figure that was not measured has a dash."""
    rows = ["| # | figure | must | aim | measured | met |", "|---|---|---|---|---|---|"]
    for key, goal in GOALS.items():
        figure = figures.get(key)
        measured = "–" if figure is None else f"**{show(figure.value, figure.unit)}**"
        must = goal.must_text if figure is None else figure.goal
        aim = goal.aim_text if figure is None else figure.aim
        met = "–" if figure is None else {True: "yes", False: "**no**", None: "–"}[figure.met]
        rows.append(f"| {key} | {goal.title} | {must} | {aim} | {measured} | {met} |")
    return "\n".join(rows)


def show(value: float, unit: str) -> str:
    """A value with its unit, to three digits."""
    digits = (
        f"{value:.0f}" if value == 0 or 1000 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")
    )
    return digits + ("" if unit in ("", "x") else " ") + unit


def draw_plot(figures: Figures, file: Path) -> None:
    """One panel per figure that is curves; no file without one.

    The same figures give the same bytes.
    """
    keys = [key for key in CURVES if key in figures and figures[key].curves]
    if not keys:
        return
    from matplotlib.figure import Figure as Canvas  # not pyplot: no global state, no display

    with mpl.rc_context(
        {"svg.hashsalt": "seal", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        widths = [2 if len(figures[key].curves) > MANY_CURVES else 1 for key in keys]
        canvas = Canvas(figsize=(4.2 * sum(widths), 3.4), layout="constrained")
        panels = canvas.subplots(1, len(keys), squeeze=False, width_ratios=widths)[0]
        for key, panel in zip(keys, panels, strict=True):
            _draw_panel(panel, figures[key])
        with file_errors(file):
            canvas.savefig(file, format="svg", metadata={"Date": None})


def _draw_panel(panel: Any, figure: Figure) -> None:
    for curve in figure.curves:
        xs, ys = zip(*curve.points, strict=True)
        panel.plot(xs, ys, marker="o", markersize=4, label=curve.name)
    panel.set_xscale("log", base=2)
    ticks = sorted({x for curve in figure.curves for x, _ in curve.points})
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_ylim(bottom=0)
    panel.set_xlabel(figure.curves[0].x)
    panel.set_ylabel(figure.curves[0].y)
    panel.set_title(figure.title, fontsize=9)
    if len(figure.curves) > MANY_CURVES:
        panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        panel.legend(fontsize=8)


def _shared(figures: Figures) -> list[str]:
    """Machine, data, model and command, once where all figures have the same, else by section."""
    lines = []
    for label, values in _provenance(figures).items():
        if len(values) == 1:
            lines.append(f"- {label}: {values[0]}")
    return ["\n".join(lines)] if lines else []


def _provenance(figures: Figures) -> dict[str, list[str]]:
    """Distinct values by label."""
    labels = {
        "Machine": [figure.machine for figure in figures.values()],
        "Model": [figure.model for figure in figures.values()],
        "Data": [figure.data for figure in figures.values()],
        "Command": [f"`{figure.command}`" for figure in figures.values()],
    }
    return {
        label: list(dict.fromkeys(value for value in values if value))
        for label, values in labels.items()
    }


def _section(key: str, figure: Figure, notes: str, source: str) -> str:
    title = f"## {key}: {figure.title}"
    lines = [f"**{show(figure.value, figure.unit)}**: {figure.reading}."]
    if figure.goal:
        lines[0] += (
            f" Asked: {figure.goal}" + (f", aim {figure.aim}" if figure.aim != "–" else "") + "."
        )
    parts = [title, lines[0], _sides(figure), _curves(figure), _details(figure), notes, source]
    return "\n\n".join(part for part in parts if part)


def _sides(figure: Figure) -> str:
    """The sides' medians and samples; without sides, the figure's samples."""
    if not figure.sides:
        return f"Samples: {_numbers(figure.samples)}" + (f" {figure.unit}" if figure.unit else "")
    rows = ["| side | median | unit | samples |", "|---|---|---|---|"]
    rows += [
        f"| {side.name} | {show(side.median, '')} | {side.unit} | {_numbers(side.samples)} |"
        for side in figure.sides
    ]
    rows.append(
        f"| **{'ratio' if figure.unit == 'x' else 'figure'}** | {show(figure.value, '')} | "
        f"{figure.unit} | {_numbers(figure.samples)} |"
    )
    return "\n".join(rows)


def _curves(figure: Figure) -> str:
    if not figure.curves:
        return ""
    xs = sorted({x for curve in figure.curves for x, _ in curve.points})
    rows = [
        f"| {figure.curves[0].x} | " + " | ".join(f"{x:g}" for x in xs) + " |",
        "|---" * (len(xs) + 1) + "|",
    ]
    for curve in figure.curves:
        values = dict(curve.points)
        rows.append(
            f"| {curve.y}: {curve.name} | "
            + " | ".join(show(values[x], "") if x in values else "–" for x in xs)
            + " |"
        )
    return "\n".join(rows)


def _details(figure: Figure) -> str:
    return "\n".join(f"- {label}: {text}" for label, text in figure.details.items())


def _source(figure: Figure, figures: Figures) -> str:
    """How to make it again, in small print: its sizes, and what is not the same for all figures."""
    shared = _provenance(figures)
    own = _provenance({"": figure})
    parts = [
        ", ".join(f"{name} {_plain(value)}" for name, value in figure.sizes.items()),
        f"took {figure.seconds:.0f} s with what shares its run",
    ]
    parts += [f"{label}: {values[0]}" for label, values in own.items() if len(shared[label]) > 1]
    return "<sub>" + "; ".join(part for part in parts if part) + "</sub>"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(show(value, "") for value in values)


def _plain(value: object) -> str:
    return (
        str(value).replace("[", "(").replace("]", ")")
        if isinstance(value, (list, tuple))
        else str(value)
    )
