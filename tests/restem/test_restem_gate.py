"""The gate: which number lets an adapter pass, and which refuses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal.records import GateReason, Interval
from seal.restem.gate import judge
from seal.settings import GateSettings
from seal.signs import MINUS

GATE = GateSettings(min_gain=0.1, confident=True, max_regression=0.05, retained_questions=8)
GAIN = Interval(0.3, 0.2, 0.4, 12)
KEPT = Interval(-0.01, -0.03, 0.01, 8)


def test_a_gain_with_its_whole_interval_above_the_least_passes() -> None:
    verdict = judge(GATE, gain=GAIN, retained_change=KEPT)
    assert verdict.passed and verdict.reason is None
    assert "+30.0 points (+20.0 to +40.0, 12 passages)" in verdict.message
    assert f"{MINUS}1.0 points ({MINUS}3.0 to +1.0, 8 passages)" in verdict.message


@pytest.mark.parametrize(
    ("gain", "kept", "reason", "number"),
    [
        (None, KEPT, GateReason.NO_SCORE, "no held-out question"),
        (
            Interval(0.05, -0.1, 0.2, 6),
            KEPT,
            GateReason.GAIN_TOO_SMALL,
            "minGain 0.1 (+10.0 points)",
        ),
        (Interval(0.3, 0.05, 0.5, 6), KEPT, GateReason.GAIN_UNCERTAIN, "+5.0 to +50.0"),
        (Interval(0.3, 0.1, 0.5, 6), KEPT, GateReason.GAIN_UNCERTAIN, "minGain 0.1 (+10.0 points)"),
        (Interval(0.9, None, None, 1), KEPT, GateReason.GAIN_UNCERTAIN, "fewer than 6"),
        (Interval(0.9, 0.8, 1.0, 5), KEPT, GateReason.GAIN_UNCERTAIN, "fewer than 6 passages"),
        (GAIN, None, GateReason.NO_SCORE, "retained set"),
        (
            GAIN,
            Interval(-0.2, -0.3, -0.1, 8),
            GateReason.FORGETS,
            f"maxRegression 0.05 allows ({MINUS}5.0",
        ),
    ],
)
def test_a_refusal_names_its_reason_and_its_number(
    gain: Interval | None, kept: Interval | None, reason: GateReason, number: str
) -> None:
    verdict = judge(GATE, gain=gain, retained_change=kept)
    assert not verdict.passed
    assert verdict.reason is reason
    assert number in verdict.message


def test_without_confidence_the_mean_alone_counts() -> None:
    lenient = GATE.model_copy(update={"confident": False})
    assert judge(lenient, gain=Interval(0.1, -0.5, 0.7, 3), retained_change=KEPT).passed
    assert judge(lenient, gain=Interval(0.2, None, None, 1), retained_change=KEPT).passed


def test_a_retained_set_that_is_not_asked_is_not_missed() -> None:
    alone = GATE.model_copy(update={"retained_questions": 0})
    verdict = judge(alone, gain=GAIN, retained_change=None)
    assert verdict.passed
    assert "no retained set" in verdict.message


def test_a_loss_of_exactly_the_budget_passes_whatever_the_rounding() -> None:
    loss = (0.1 + 0.2) - 0.35  # -0.04999999999999993, and its neighbours
    for value in (loss, -0.05, -0.05 - 1e-12):
        assert judge(GATE, gain=GAIN, retained_change=Interval(value, -1, 1, 8)).passed


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.booleans())
def test_a_higher_gain_never_turns_a_pass_into_a_refusal(
    mean: float, more: float, least: float, confident: bool
) -> None:
    settings = GateSettings(min_gain=least, confident=confident)

    def passes(gain: float) -> bool:
        value = Interval(gain, gain - 0.1, gain + 0.1, 5)
        return judge(settings, gain=value, retained_change=KEPT).passed

    assert passes(mean + more) or not passes(mean)
