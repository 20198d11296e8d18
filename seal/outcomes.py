"""How a step of the inner loop ended. A missing score is missing, never 0 (docs/concepts.md)."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The end of one candidate, training or answer."""

    OK = "ok"
    """Finished; the numbers beside it are valid."""
    INVALID = "invalid"
    """The edit parsed to no training example."""
    TOO_LONG = "too_long"
    """A row is longer than the engine or the model's positions allow."""
    INERT = "inert"
    """The adapter changes nothing: its logits are the base's."""
    DIVERGED = "diverged"
    """Training, or the adapted model, met NaN or Inf."""
    REFUSED = "refused"
    """The engine cannot do it even alone, for example for want of memory."""
    UNGRADED = "ungraded"
    """No grade could be given, for example because the judge was down."""
    CANCELLED = "cancelled"
    """The caller stopped it."""
