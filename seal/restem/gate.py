"""The gate: whether an adapter is published, and by which number it is refused.

Two questions, in this order: does it gain on questions that nothing was chosen by, and does it keep
what the base model knew. A missing number is none that could be passed.
"""

from __future__ import annotations

from seal.records import GateReason, GateVerdict, Interval
from seal.restem.select import SAME_SCORE
from seal.restem.student import LEAST_FOR_A_VERDICT
from seal.settings import GateSettings
from seal.signs import MINUS


def judge(
    settings: GateSettings, *, gain: Interval | None, retained_change: Interval | None
) -> GateVerdict:
    """The verdict on an adapter.

    `gain`: the adapter against the base model on the held-out questions, mean token F1 over
    passages. `retained_change`: the same on the retained set; not looked at where the settings ask
    no questions of it. None is a missing score.
    """
    if gain is None:
        return _refused(GateReason.NO_SCORE, "no held-out question has a score")
    shown = f"gain {_shown(gain)}"
    least = f"gate.minGain {settings.min_gain:g} ({_points(settings.min_gain)} points)"
    if gain.mean < settings.min_gain - SAME_SCORE:
        return _refused(GateReason.GAIN_TOO_SMALL, f"{shown} is below {least}")
    if settings.confident and gain.n < LEAST_FOR_A_VERDICT:
        return _refused(
            GateReason.GAIN_UNCERTAIN,
            f"{shown} rests on fewer than {LEAST_FOR_A_VERDICT} passages with held-out questions, "
            "which cannot show what gate.confident asks for",
        )
    if settings.confident and (gain.low is None or gain.low <= settings.min_gain + SAME_SCORE):
        return _refused(
            GateReason.GAIN_UNCERTAIN, f"{shown}: the interval is not wholly above {least}"
        )
    if not settings.retained_questions:
        return GateVerdict(passed=True, message=f"{shown}; no retained set was asked")
    if retained_change is None:
        return _refused(
            GateReason.NO_SCORE, f"{shown}, but no question of the retained set has a score"
        )
    kept = f"the retained set changes by {_shown(retained_change)}"
    budget = f"gate.maxRegression {settings.max_regression:g}"
    if retained_change.mean < -settings.max_regression - SAME_SCORE:
        return _refused(
            GateReason.FORGETS,
            f"{kept}, more than {budget} allows "
            f"({_points(-settings.max_regression)} points); {shown}",
        )
    return GateVerdict(passed=True, message=f"{shown}; {kept}")


def _refused(reason: GateReason, message: str) -> GateVerdict:
    return GateVerdict(passed=False, reason=reason, message=message)


def _shown(value: Interval) -> str:
    """A difference in F1 as reports show it: `+21.0 points (+5.0 to +39.0, 12 passages)`."""
    passages = f"{value.n} passage{'s' if value.n != 1 else ''}"
    if value.low is None or value.high is None:
        return f"{_points(value.mean)} points ({passages})"
    ends = f"{_points(value.low)} to {_points(value.high)}"
    return f"{_points(value.mean)} points ({ends}, {passages})"


def _points(share: float) -> str:
    """0.21 -> +21.0, with a real minus sign."""
    return f"{100 * share:+.1f}".replace("-", MINUS)
