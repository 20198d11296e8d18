"""Spearman's rank correlation between conditions, and its bootstrap over contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""One reward per edit, (E,)."""
CONFIDENCE = 0.95


def ranks(values_E: Scores) -> Scores:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse_E, counts = np.unique(values_E, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks_E: Scores = (last - (counts + 1) / 2)[inverse_E]
    return ranks_E


def spearman(one_E: Scores, other_E: Scores) -> float:
    """Rank correlation; NaN where one side has no spread."""
    one_E, other_E = ranks(one_E), ranks(other_E)
    one_E, other_E = one_E - one_E.mean(), other_E - other_E.mean()
    norm = float(np.sqrt((one_E**2).sum() * (other_E**2).sum()))
    return float((one_E * other_E).sum()) / norm if norm > 0 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """Mean correlations over pairs of different seeds."""

    across: float
    """A clean training with one of the mode under other seeds."""
    ceiling: float
    """Two clean trainings under different seeds: what the noise between seeds leaves."""
    own: float
    """Two trainings of the mode under different seeds."""

    @property
    def drop(self) -> float:
        """How much less a mode agrees with clean than clean with itself.

        Negative where it agrees more.
        """
        return self.ceiling - self.across


def agreement(clean: Sequence[Scores], mode: Sequence[Scores]) -> Agreement:
    """Correlations of the same edits' rewards.

    Item i of both sequences has the same seeds, so only pairs i != j are compared.
    """
    places = range(len(clean))
    across = [spearman(clean[i], mode[j]) for i, j in permutations(places, 2)]
    ceiling = [spearman(clean[i], clean[j]) for i, j in combinations(places, 2)]
    own = [spearman(mode[i], mode[j]) for i, j in combinations(places, 2)]
    return Agreement(float(np.mean(across)), float(np.mean(ceiling)), float(np.mean(own)))


def bootstrap(
    contexts: Sequence[str],
    statistic: Callable[[NDArray[np.intp]], Mapping[str, float]],
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the statistics, by name, over resamples of whole contexts.

    `contexts`: each edit's context; `statistic` gets indices of edits. Values that are NaN (no
    spread in a resample) are left out.
    """
    generator = np.random.default_rng(seed)
    names = sorted(set(contexts))
    members = [np.flatnonzero(np.asarray(contexts) == name) for name in names]
    drawn = [
        statistic(
            np.concatenate(
                [members[place] for place in generator.integers(0, len(names), len(names))]
            )
        )
        for _ in range(resamples)
    ]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    intervals = {}
    for name in drawn[0]:
        values = np.array([one[name] for one in drawn])
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, tails) if len(values) else (float("nan"), float("nan"))
        intervals[name] = (float(low), float(high))
    return intervals


def within_contexts(values_E: Scores, contexts: Sequence[str]) -> Scores:
    """Rewards minus their context's mean: what tells a context's candidates apart."""
    names = np.asarray(contexts)
    means = {name: values_E[names == name].mean() for name in sorted(set(contexts))}
    centred_E: Scores = values_E - np.array([means[name] for name in contexts])
    return centred_E
