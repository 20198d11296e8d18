"""A mean with what it may be worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over contexts and its 95 % bootstrap interval."""

    mean: float
    low: float | None
    """None with fewer than two contexts: one says nothing about the spread."""
    high: float | None
    n: int
    """Contexts with a value."""
