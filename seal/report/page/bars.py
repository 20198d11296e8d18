"""The picture that the page opens with: a bar for every kind of training, with its interval.

Places along the axis are per cent of the width, so that letters, lines and hatches keep their size
on a telephone and on paper. Kinds differ by fill: empty, pale, full, hatched; every bar has its
name and its number above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from seal.report.numbers.formats import interval, percent
from seal.report.numbers.model import Estimate, RowKind, ScoreRow
from seal.report.page.markup import Html, figure, join, tag

ROW_PIXELS = 46
AXIS_PIXELS = 26
_BAR_TOP, _BAR_PIXELS, _CAP_PIXELS = 20, 16, 5
_FILLS: Mapping[RowKind, str] = {
    "base": "empty",
    "passage": "pale",
    "edit": "full",
    "gold": "hatched",
}
_HATCH = "bars-hatch"
CAPTION = (
    "How many answers are right, from memory, after each kind of training on passages that the "
    "writing of self-edits was never trained on. The thin line on a bar, and the numbers in "
    "brackets, are its 95 % interval: how far the mean may be off because these are only some of "
    "all such passages. The dashed line is training on the passage alone, which self-edits have "
    "to beat."
)


def opening_figure(rows: Sequence[ScoreRow]) -> Html | None:
    """Accuracy of every row as a horizontal bar; None while nothing is measured."""
    if all(row.metrics["contains"].mean is None for row in rows):
        return None
    end = _axis_end(rows)
    bottom = ROW_PIXELS * len(rows)
    placed = [(row, ROW_PIXELS * place) for place, row in enumerate(rows)]
    svg = tag(  # later parts are drawn over earlier ones
        "svg",
        tag("defs", _hatch()),
        *_axis(end, bottom),
        *(_bar(row, top, end) for row, top in placed),
        _reference(rows, bottom, end),
        *(_whisker(row.metrics["contains"], top, end) for row, top in placed),
        *(_words(row, top) for row, top in placed),
        class_="bars",
        role="img",
        width="100%",
        height=str(bottom + AXIS_PIXELS),
        aria_label=_description(rows),
    )
    return figure(svg, CAPTION)


def _description(rows: Sequence[ScoreRow]) -> str:
    """The picture for those who do not see it."""
    values = (f"{row.label} {percent(row.metrics['contains'].mean)}" for row in rows)
    return f"right answers: {', '.join(values)}"


def _axis_end(rows: Sequence[ScoreRow]) -> float:
    """The next tenth above everything that is drawn, as a share."""
    ends = [
        end
        for row in rows
        for end in (row.metrics["contains"].mean, row.metrics["contains"].high)
        if end is not None
    ]
    return max(1, math.ceil(round(10 * max(ends), 6))) / 10


def _axis(end: float, bottom: int) -> list[Html]:
    """Upright lines with their percentages below; 0 and the end are drawn in any case."""
    tenths = round(10 * end)
    step = 2 if tenths > 5 and tenths % 2 == 0 else 5 if tenths == 5 else 1
    parts: list[Html] = []
    for tick in range(0, tenths + 1, step):
        place = _place(tick / 10, end)
        anchor = "start" if tick == 0 else "end" if tick == tenths else "middle"
        parts.append(tag("line", class_="grid", x1=place, x2=place, y1="0", y2=str(bottom)))
        parts.append(
            tag("text", f"{10 * tick} %", class_="tick", x=place, y=str(bottom + 18),
                text_anchor=anchor)
        )  # fmt: skip
    return parts


def _words(row: ScoreRow, top: int) -> Html:
    """Name and number."""
    estimate = row.metrics["contains"]
    span = interval(estimate, "contains", "contains")
    number = "no score" if estimate.mean is None else percent(estimate.mean)
    return join(
        tag("text", row.label, class_="name", x="0", y=str(top + 14)),
        tag(
            "text",
            tag("tspan", number, class_="name"),
            tag("tspan", f" {span}", class_="span") if span else None,
            x="100%",
            y=str(top + 14),
            text_anchor="end",
        ),
    )


def _bar(row: ScoreRow, top: int, end: float) -> Html | None:
    mean, fill = row.metrics["contains"].mean, _FILLS[row.kind]
    if mean is None:
        return None
    return tag(
        "rect",
        class_=f"bar {fill}",
        x="0",
        y=str(top + _BAR_TOP),
        width=_place(mean, end),
        height=str(_BAR_PIXELS),
        fill=f"url(#{_HATCH})" if fill == "hatched" else None,
    )


def _reference(rows: Sequence[ScoreRow], bottom: int, end: float) -> Html | None:
    """The mean of passage only, across all bars."""
    mean = next((row.metrics["contains"].mean for row in rows if row.kind == "passage"), None)
    if mean is None:
        return None
    return join(*_drawn(_place(mean, end), _place(mean, end), 0, bottom, "reference"))


def _whisker(estimate: Estimate, top: int, end: float) -> Html | None:
    """The interval as a line with caps, over a wider one in the colour of the paper."""
    if estimate.low is None or estimate.high is None:
        return None
    low, high = _place(estimate.low, end), _place(estimate.high, end)
    middle = top + _BAR_TOP + _BAR_PIXELS // 2
    lines = (
        (low, high, middle, middle),
        (low, low, middle - _CAP_PIXELS, middle + _CAP_PIXELS),
        (high, high, middle - _CAP_PIXELS, middle + _CAP_PIXELS),
    )
    halves = [_drawn(*line, "interval") for line in lines]
    return join(*(halo for halo, _ in halves), *(ink for _, ink in halves))


def _drawn(x1: str, x2: str, y1: int, y2: int, kind: str) -> tuple[Html, Html]:
    """A line twice: its halo, so that it shows on any fill, and its ink."""
    halo, ink = (
        tag("line", class_=class_, x1=x1, x2=x2, y1=str(y1), y2=str(y2))
        for class_ in (f"{kind} halo", kind)
    )
    return halo, ink


def _place(share: float, end: float) -> str:
    return f"{100 * share / end:.2f}%"


def _hatch() -> Html:
    stripe = tag("line", class_="stripe", x1="0", y1="0", x2="0", y2="6")
    return tag(
        "pattern",
        stripe,
        id=_HATCH,
        width="6",
        height="6",
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
