"""By how much the metrics of this process grow in a test."""

from __future__ import annotations

from seal.metrics import metrics


class Growth:
    """Since it was made."""

    def __init__(self) -> None:
        self._before = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """That of one series."""
        before = self._before.get((name, frozenset(labels.items())), 0.0)
        return (metrics.registry.get_sample_value(name, labels) or 0.0) - before
