"""The picture that the page opens with: a bar a measure for every kind of training, with intervals.

The domain's measures stand side by side, each in a panel of its own on the same scale, so
that the eye runs down a measure and across a training. Places along the axis are per cent of the
width, so that letters, lines and hatches keep their size on a telephone and on paper. Kinds differ
by fill: empty, pale, full, dotted, hatched; every line of bars has its name above it, every bar its
number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seal.report.numbers.comparisons import compared_passage
from seal.report.numbers.formats import MEASURE_NAMES, interval, percent
from seal.report.numbers.model import Estimate, Metric, Report, RowKind, ScoreRow
from seal.report.page.markup import Html, figure, join, tag

HEAD_PIXELS = 26
ROW_PIXELS = 66
AXIS_PIXELS = 26
PANEL_PER_CENT = 30.0
GAP_PER_CENT = 5.0
_NAME, _NUMBER, _BAR_TOP, _BAR_PIXELS, _CAP_PIXELS = 18, 36, 43, 14, 5
"""Within a row, in pixels: base lines of name and numbers, the bar, half an interval's cap."""
_OVER_PIXELS = 3
"""By which the reference line stands out of a bar."""
_FILLS: Mapping[RowKind, str] = {
    "base": "empty",
    "passage": "pale",
    "passage-equal-steps": "pale",
    "edit": "full",
    "gold": "hatched",
    "open-book": "hatched",
    "fixed-edit": "pale",
    "oracle-edit": "hatched",
}
_PATTERNS: Mapping[str, str] = {"hatched": "bars-hatch", "dotted": "bars-dots"}
_CAPTION = (
    "{asked} The thin line on a bar, and the numbers in brackets, are its 95 % interval: how far "
    "the mean may be off because these are only some of all such {context}s."
)


def opening_figure(report: Report) -> Html | None:
    """Every row as a line of horizontal bars, one a measure; None while nothing is measured."""
    rows, measures = report.rows, report.measures
    if all(row.metrics[measure].mean is None for row in rows for measure in measures):
        return None
    scale = _Scale(measures, _axis_end(rows, measures))
    caption = _CAPTION.format(asked=report.words.measured, context=report.words.context)
    bottom = HEAD_PIXELS + ROW_PIXELS * len(rows)
    placed = [(row, HEAD_PIXELS + ROW_PIXELS * place) for place, row in enumerate(rows)]
    svg = tag(  # later parts are drawn over earlier ones
        "svg",
        tag("defs", _hatch(), _dots()),
        *(_axis(panel, scale, bottom) for panel in measures),
        *(_bars(row, top, scale) for row, top in placed),
        _reference(rows, placed, scale),
        *(_whiskers(row, top, scale) for row, top in placed),
        *(_words(row, top, scale) for row, top in placed),
        class_="bars",
        role="img",
        width="100%",
        height=str(bottom + AXIS_PIXELS),
        aria_label=_description(rows, measures),
    )
    return figure(svg, " ".join((caption, *_further_words(rows))))


@dataclass(frozen=True)
class _Scale:
    """Where shares lie in the panels."""

    measures: tuple[Metric, ...]
    """One panel each, from the left."""
    end: float
    """Share at the right end of each panel."""

    def left(self, measure: Metric) -> float:
        """Left end of a panel, in per cent of the width."""
        return self.measures.index(measure) * (PANEL_PER_CENT + GAP_PER_CENT)

    def place(self, measure: Metric, share: float) -> str:
        """Where a share lies."""
        return f"{self.left(measure) + PANEL_PER_CENT * share / self.end:.2f}%"


def _further_words(rows: Sequence[ScoreRow]) -> Iterator[str]:
    """Of the caption: what not every picture shows."""
    if passage := compared_passage(rows):
        yield f"The dashed line, “{passage.label}”, is what self-edits have to beat."
    if any(_fill(row) == "dotted" for row in rows):
        yield "Dotted: rounds that learnt what was drawn by chance, the control without reward."
    if any(_fill(row) == "hatched" for row in rows):
        yield "Hatched: ceilings, measured without self-edits."


def _description(rows: Sequence[ScoreRow], measures: Sequence[Metric]) -> str:
    """The picture for those who do not see it."""
    values = (
        f"{row.label} "
        + ", ".join(
            f"{MEASURE_NAMES[measure]} {percent(row.metrics[measure].mean)}" for measure in measures
        )
        for row in rows
    )
    return f"answers: {'; '.join(values)}"


def _axis_end(rows: Sequence[ScoreRow], measures: Sequence[Metric]) -> float:
    """The next even tenth above everything that is drawn, as a share."""
    ends = [
        end
        for row in rows
        for measure in measures
        for end in (row.metrics[measure].mean, row.metrics[measure].high)
        if end is not None
    ]
    return 2 * max(1, math.ceil(round(5 * max(ends), 6))) / 10


def _axis(measure: Metric, scale: _Scale, bottom: int) -> Html:
    """The title of a panel, and upright lines at its ends and middle with percentages below."""
    end = scale.end
    title = MEASURE_NAMES[measure]
    parts = [tag("text", title, class_="title", x=scale.place(measure, 0), y="16")]
    for share, anchor in ((0.0, "start"), (end / 2, "middle"), (end, "end")):
        place = scale.place(measure, share)
        parts.append(
            tag("line", class_="grid", x1=place, x2=place, y1=str(HEAD_PIXELS), y2=str(bottom))
        )
        parts.append(
            tag("text", f"{100 * share:.0f} %", class_=f"tick {anchor}", x=place,
                y=str(bottom + 18), text_anchor=anchor)
        )  # fmt: skip
    return join(*parts)


def _words(row: ScoreRow, top: int, scale: _Scale) -> Html:
    """Name and numbers."""
    name = tag("text", row.label, class_="name", x="0", y=str(top + _NAME))
    numbers = (_number(row.metrics[one], one, top, scale) for one in scale.measures)
    return join(name, *numbers)


def _number(estimate: Estimate, measure: Metric, top: int, scale: _Scale) -> Html:
    span = interval(estimate, measure, "")
    number = "no score" if estimate.mean is None else percent(estimate.mean)
    return tag(
        "text",
        tag("tspan", number, class_="number"),
        tag("tspan", f" {span}", class_="span") if span else None,
        x=f"{scale.left(measure):.2f}%",
        y=str(top + _NUMBER),
    )


def _fill(row: ScoreRow) -> str:
    return "dotted" if row.kind == "edit" and row.without_reward else _FILLS[row.kind]


def _bars(row: ScoreRow, top: int, scale: _Scale) -> Html:
    fill = _fill(row)
    return join(
        *(
            tag(
                "rect",
                class_=f"bar {fill}",
                x=f"{scale.left(measure):.2f}%",
                y=str(top + _BAR_TOP),
                width=f"{PANEL_PER_CENT * mean / scale.end:.2f}%",
                height=str(_BAR_PIXELS),
                fill=f"url(#{_PATTERNS[fill]})" if fill in _PATTERNS else None,
            )
            for measure in scale.measures
            if (mean := row.metrics[measure].mean) is not None
        )
    )


def _reference(
    rows: Sequence[ScoreRow], placed: Sequence[tuple[ScoreRow, int]], scale: _Scale
) -> Html | None:
    """The means of the passage alone, across every bar of their panel but no words."""
    passage = compared_passage(rows)
    if passage is None:
        return None
    bars = [top + _BAR_TOP for _, top in placed]
    halves = [
        _drawn(place, place, bar - _OVER_PIXELS, bar + _BAR_PIXELS + _OVER_PIXELS, "reference")
        for measure in scale.measures
        if (mean := passage.metrics[measure].mean) is not None
        for place in (scale.place(measure, mean),)
        for bar in bars
    ]
    return join(*(half for pair in halves for half in pair))


def _whiskers(row: ScoreRow, top: int, scale: _Scale) -> Html:
    return join(
        *(_whisker(row.metrics[one], one, top, scale) for one in scale.measures),
    )


def _whisker(estimate: Estimate, measure: Metric, top: int, scale: _Scale) -> Html | None:
    """The interval as a line with caps, over a wider one in the colour of the paper."""
    if estimate.low is None or estimate.high is None:
        return None
    low, high = scale.place(measure, estimate.low), scale.place(measure, estimate.high)
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


def _hatch() -> Html:
    stripe = tag("line", class_="stripe", x1="0", y1="0", x2="0", y2="6")
    return _pattern("hatched", stripe, turn="rotate(45)")


def _dots() -> Html:
    return _pattern("dotted", tag("circle", class_="dot", cx="3", cy="3", r="1.7"))


def _pattern(fill: str, drawn: Html, *, turn: str | None = None) -> Html:
    return tag(
        "pattern",
        drawn,
        id=_PATTERNS[fill],
        width="6",
        height="6",
        patternUnits="userSpaceOnUse",
        patternTransform=turn,
    )
