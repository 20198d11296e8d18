"""Numbers as people read them, the same in notes, in the terminal and on the page.

What is missing is a dash, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from seal.domains import DOMAINS
from seal.report.numbers.model import Estimate, Metric, RolloutReport, StageReport
from seal.report.numbers.words import name_of
from seal.signs import MINUS

MISSING = "–"
NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

_MEASURES = tuple(measure for domain in DOMAINS.values() for measure in domain.measures)
MEASURE_NAMES: Mapping[Metric, str] = {
    **{measure.name: measure.label for measure in _MEASURES},
    "logprob": "log p",
    "score": "reward",
}
"""Short ones, for what is shown side by side."""
MEASURE_GLOSSES: Mapping[Metric, str] = {measure.name: measure.gloss for measure in _MEASURES}
"""What they are, in a few words more."""
GRADER_NAMES: Mapping[str, str] = {
    **{measure.name: measure.accuracy for measure in _MEASURES},
    "logprob": "log p",
    "judge": "judged right",
}
"""What a run's reward is called."""
GRADER_WORDS: Mapping[str, str] = {
    **{measure.name: measure.means for measure in _MEASURES},
    "logprob": "the log-probability of the first gold answer in nats per token (log p)",
    "judge": "the share of answers that the judge's model finds right (judged right)",
}
"""What a grader measures, to go on from "is"."""


def percent(value: float | None) -> str:
    """0.1234 -> 12.3 %."""
    return MISSING if value is None else f"{_number(100 * value, 1, False)}{NBSP}%"


def points(value: float | None) -> str:
    """A difference of shares in percentage points: 0.1234 -> +12.3."""
    return MISSING if value is None else _number(100 * value, 1, True)


def plain(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """0.1234 -> 0.123."""
    return MISSING if value is None else _number(value, digits, signed)


def score(value: float | None, metric: Metric, grader: str, *, signed: bool = False) -> str:
    """A score in the unit of its metric.

    Shares in percent, their differences in points; log p in nats.
    """
    if "logprob" in (metric, grader if metric == "score" else ""):
        return plain(value, digits=2, signed=signed)
    return points(value) if signed else percent(value)


def interval(
    estimate: Estimate | None, metric: Metric, grader: str, *, signed: bool = False
) -> str:
    """[low, high] in the unit of the metric; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = (
        score(end, metric, grader, signed=signed).removesuffix(f"{NBSP}%")
        for end in (estimate.low, estimate.high)
    )
    return f"[{low}, {high}]"


def with_interval(
    estimate: Estimate | None, metric: Metric, grader: str, *, signed: bool = False
) -> str:
    """12.3 % [8.0, 16.1], or +3.1 [-1.0, +7.2] for a difference."""
    if estimate is None or estimate.mean is None:
        return MISSING
    mean = score(estimate.mean, metric, grader, signed=signed)
    return f"{mean} {interval(estimate, metric, grader, signed=signed)}".rstrip()


def duration(seconds: float | None) -> str:
    """59 s, 3 min 05 s, 2 h 04 min."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min{NBSP}{whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h{NBSP}{whole % 3600 // 60:02d}{NBSP}min"


def storage(size: int) -> str:
    """Bytes: 512 B, 34.2 KiB, 1.5 MiB."""
    amount, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while round(amount, 1) >= 1024 and unit != "TiB":
        amount, unit = amount / 1024, next(units)
    return f"{amount:.0f}{NBSP}B" if unit == "B" else f"{amount:.1f}{NBSP}{unit}"


def count(value: float) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,.0f}"


def plural(n: int, one: str, many: str = "") -> str:
    """1 passage, 2 passages."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def kept(rollout: RolloutReport) -> str:
    """What the M-step learnt of a rollout: edits, or parts of them; a dash before the choice."""
    if not rollout.selection_sha256:
        return MISSING
    by_part = bool(rollout.dropped_parts)
    return plural(rollout.kept_parts, "part").replace(" ", NBSP) if by_part else str(rollout.kept)


def stage_name(stage: StageReport) -> str:
    """`round 1, rollout`; the M-step of round 0 is the warm start."""
    warm = (stage.round, stage.stage) == (0, "improve")
    return f"round {stage.round}, {'warm start' if warm else stage.stage}"


def counts(values: Mapping[str, int]) -> str:
    """3 kept, 5 too long; a dash for none."""
    named = (f"{count(n)} {name_of(name)}" for name, n in values.items() if n)
    return ", ".join(named) or MISSING


def listed(parts: list[str]) -> str:
    """a, b and c."""
    return (
        parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
    )


def _number(value: float, digits: int, signed: bool) -> str:
    """With a real minus sign, and without the sign of a rounded zero."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if not any(character in "123456789" for character in text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)
