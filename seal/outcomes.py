"""How a step of the inner loop ended. A missing score is missing, never 0 (docs/concepts.md)."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The end of one candidate, training or answer."""

    OK = "ok"
    """Finished; the numbers beside it are valid."""
    INVALID = "invalid"
    """The edit parsed to no training example."""
    DIVERGED = "diverged"
    """Training met NaN or Inf."""
    UNGRADED = "ungraded"
    """No grade could be given, for example because the judge was down."""
    CANCELLED = "cancelled"
    """The caller stopped it."""
