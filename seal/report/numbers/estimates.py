"""Means with intervals for the report, under the run's seed, and in words what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seal.report.numbers.model import Estimate
from seal.restem.statistics import RESAMPLES, Interval, mean_interval, paired_interval


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Makes estimates from scores by passage; the same seed and scores give the same interval."""

    seed: int

    @property
    def words(self) -> str:
        """How the intervals are made."""
        method = (
            f"95 % percentile bootstrap over passages ({RESAMPLES:,} resamples, seed {self.seed})"
        )
        return f"{method}; differences are paired, passage by passage"

    def mean(self, scores: Mapping[str, float]) -> Estimate:
        """Mean over passages."""
        return _estimate(mean_interval(scores.values(), seed=self.seed))

    def difference(self, scores: Mapping[str, float], reference: Mapping[str, float]) -> Estimate:
        """Mean of `scores` - `reference` over the passages that have both."""
        return _estimate(paired_interval(scores, reference, seed=self.seed))


def _estimate(interval: Interval | None) -> Estimate:
    if interval is None:
        return Estimate(n=0, mean=None)
    return Estimate(n=interval.n, mean=interval.mean, low=interval.low, high=interval.high)
