"""Is the answer right? Exactly, in its shape, and cell by cell."""

from __future__ import annotations

import math
from collections.abc import Mapping

from seal.domains.arc.grids import equal_cells, grid_of, same_shape
from seal.settings import TextGrader


def measure(answer: str, golds: tuple[str, ...]) -> Mapping[str, float]:
    """`grid`, `shape` and `cells` of a clean answer, by the gold answer that fits best."""
    given = grid_of(answer)
    best = (0.0, 0.0, 0.0)
    for gold in map(grid_of, golds):
        if given is not None and gold is not None:
            shape = float(same_shape(given, gold))
            best = max(best, (float(given == gold), equal_cells(given, gold), shape))
    return {"grid": best[0], "shape": best[2], "cells": best[1]}


def grade(
    grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
) -> float | None:
    """Score of a clean answer; None without a gold grid, or where there is no log-probability."""
    if grader == "logprob":
        return logprob if logprob is not None and math.isfinite(logprob) else None
    if grader != "grid" or not any(grid_of(gold) is not None for gold in golds):
        return None
    return measure(answer, golds)["grid"]
