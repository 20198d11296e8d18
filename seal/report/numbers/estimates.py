"""Means with intervals for the report, under the run's seed, and in words what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seal.records import Interval
from seal.report.numbers.model import Difference, Estimate, Metric, Verdict
from seal.restem.select import SAME_SCORE
from seal.restem.statistics import (
    RESAMPLES,
    mean_interval,
    success_interval,
)
from seal.restem.student import LEAST_FOR_A_VERDICT


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Makes estimates from scores by passage; the same seed and scores give the same interval."""

    seed: int
    context: str = "passage"
    """What the domain calls a context."""
    success: str = ""
    """Label of the measure that says whether an answer is right or wrong, if there is one."""
    shares: frozenset[Metric] = frozenset()
    """Metrics of which a mean is a share of successes."""

    @property
    def words(self) -> str:
        """How the intervals are made."""
        method = (
            f"95 % bootstrap over {self.context}s (expanded percentiles, {RESAMPLES:,} "
            f"resamples, seed {self.seed})"
        )
        of_success = f", of {self.success} Wilson's;" if self.success else ";"
        return f"{method}{of_success} differences are paired, {self.context} by {self.context}"

    def mean(self, scores: Mapping[str, float], metric: Metric) -> Estimate:
        """Mean over passages; of a metric that is success, their share."""
        if metric in self.shares:
            return _estimate(success_interval(scores.values()))
        return _estimate(mean_interval(scores.values(), seed=self.seed))

    def difference(self, differences: Mapping[str, float]) -> Difference:
        """Mean of the differences by passage, and its verdict."""
        found = _estimate(mean_interval(differences.values(), seed=self.seed))
        return Difference(**found.model_dump(), verdict=_verdict(found))


def _estimate(interval: Interval | None) -> Estimate:
    if interval is None:
        return Estimate(n=0, mean=None)
    return Estimate(n=interval.n, mean=interval.mean, low=interval.low, high=interval.high)


def _verdict(found: Estimate) -> Verdict:
    if found.n < LEAST_FOR_A_VERDICT or found.low is None or found.high is None:
        return Verdict.UNKNOWN
    if found.low > SAME_SCORE:
        return Verdict.BETTER
    return Verdict.WORSE if found.high < -SAME_SCORE else Verdict.UNCLEAR
