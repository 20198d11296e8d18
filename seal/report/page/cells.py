"""Numbers as cells of the page's tables."""

from __future__ import annotations

from seal.report.numbers.formats import MISSING, interval, score
from seal.report.numbers.model import Estimate, Metric
from seal.report.page.markup import Html, join, tag


def valued(estimate: Estimate | None, metric: Metric, grader: str, *, signed: bool = False) -> Html:
    """An estimate and, softly, its interval."""
    if estimate is None or estimate.mean is None:
        return join(MISSING)
    span = interval(estimate, metric, grader, signed=signed)
    return join(
        score(estimate.mean, metric, grader, signed=signed),
        tag("span", f" {span}", class_="range") if span else None,
    )
