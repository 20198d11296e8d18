"""The controller's metrics of objects: how many are where, how far runs are, what loops came to.

The pods of Jobs end before anybody scrapes them: what they counted travels in the objects' status,
and is counted here when it is first seen there. What names a run goes some time after the run's
end.
"""

from __future__ import annotations

from collections import Counter

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.jobs import Owner
from controller_svc.run_values import run_values
from seal.metrics import Metrics
from seal.resources import RUN_KIND

Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""


class ObjectGauges:
    """What the metrics say of the objects of one controller's turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._phases: dict[Key, Phase] = {}

    def show(self, owner: Owner, status: RunStatus, *, percent: int) -> None:
        """An object as it is now; a run that had ended before it was first seen has no gauges."""
        key = (owner.kind, owner.namespace, owner.name)
        before = self._phases.get(key)
        if before != status.phase:
            self._count(key, -1)
            self._phases[key] = status.phase
            self._count(key, 1)
        ended = status.phase.terminal
        if owner.kind == RUN_KIND and (not ended or (before is not None and not before.terminal)):
            values = run_values(status, share=percent / 100)
            self._metrics.runs.show((owner.namespace, owner.name), values, ended=ended)

    def _count(self, key: Key, change: int) -> None:
        phase = self._phases.get(key)
        if phase is not None:
            self._metrics.objects.labels(kind=key[0], phase=str(phase)).inc(change)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """An object has gone."""
        key = (kind, namespace, name)
        self._count(key, -1)
        if self._phases.pop(key, None) is not None and kind == RUN_KIND:
            self._metrics.runs.forget((namespace, name))

    def clear(self) -> None:
        """Show none any more: another controller leads."""
        for key in list(self._phases):
            self.forget(*key)

    def count(self, before: RunStatus, after: RunStatus) -> None:
        """What inner loops came to since the status before."""
        news = _outcomes(after)
        news.subtract(_outcomes(before))
        for outcome, number in news.items():
            if number > 0:
                self._metrics.inner_loops.labels(outcome=outcome).inc(number)


def _outcomes(status: RunStatus) -> Counter[str]:
    """Inner loops by outcome, of all stages."""
    counts: Counter[str] = Counter()
    for entry in status.rounds:
        for name, number in entry.outcomes.items():
            counts[name.rpartition("/")[2]] += number
    if status.adaptation is not None:
        counts.update(status.adaptation.edits)
    return counts
