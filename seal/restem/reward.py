"""Reward and gain of a candidate.

A score that is missing stays missing: it is never counted as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def present(values: Iterable[float | None]) -> list[float]:
    """The values that are there: neither None nor NaN nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there, the same in any order; None if there are none.

    A baseline, or a reward over its repeats.
    """
    there = present(values)
    return math.fsum(there) / len(there) if there else None


def gain(reward: float | None, baseline: float | None) -> float | None:
    """What an edit added to the policy's own score; None if either is missing."""
    there = present((reward, baseline))
    return there[0] - there[1] if len(there) == 2 else None
