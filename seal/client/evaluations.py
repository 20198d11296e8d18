"""What an adapter is worth, as a client gets it back.

A number that is missing is None, never 0. `self_made` says that the questions behind a number were
made by the model itself: say so wherever such a number is shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over passages with its 95 % interval, a bootstrap (expanded percentiles)."""

    mean: float
    low: float | None
    """Lower end; None of a single passage, which says nothing about the spread."""
    high: float | None
    """Upper end; None where the lower end is."""
    passages: int
    """That it rests on."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one model is worth by one measure."""

    model: str
    """Who was asked: base, passages or adapter."""
    measure: str
    """f1, exact, contains: 0 to 1; logprob: nats per token."""
    value: Interval


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model against another by one measure, passage by passage."""

    model: str
    against: str
    measure: str
    value: Interval
    """First minus second."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an adapter is worth on questions that nothing was trained on or chosen by."""

    questions: int
    self_made: bool
    """The questions were made by the model itself."""
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    """The adapter against the base model and against the passages alone."""
    retained_questions: int
    retained: tuple[Score, ...]
    """Base model and adapter on the retained set."""
    retained_change: Interval | None
    """The adapter against the base model on the retained set, F1."""

    def score(self, model: str, measure: str) -> Interval | None:
        """A score on the held-out questions; None if it is missing."""
        return next(
            (one.value for one in self.scores if (one.model, one.measure) == (model, measure)), None
        )

    def difference(self, model: str, against: str, measure: str) -> Interval | None:
        """A paired difference on the held-out questions; None if it is missing."""
        wanted = (model, against, measure)
        return next(
            (
                one.value
                for one in self.differences
                if (one.model, one.against, one.measure) == wanted
            ),
            None,
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate said and by which number."""

    passed: bool
    reason: str
    """CamelCase reason of a refusal: GainTooSmall, GainUncertain, Forgets, NoScore; else empty."""
    message: str
    """In words, with the numbers."""
