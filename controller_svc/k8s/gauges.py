"""The controller's metrics of objects: how many are where, how far runs are, what loops came to.

The pods of Jobs end before anybody scrapes them: what they counted travels in the objects' status,
and is counted here when it is first seen there. What names a run is taken away at the run's end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.jobs import Owner
from seal.resources import RUN_KIND
from seal.telemetry import Metrics


@dataclass(frozen=True)
class _Shown:
    """What the metrics say of an object."""

    phase: Phase
    runs: bool
    """Whether there are gauges of its own."""
    rounds: tuple[str, ...]


class ObjectGauges:
    """What the metrics say of the objects of one controller's turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: dict[tuple[str, str, str], _Shown] = {}

    def show(self, owner: Owner, status: RunStatus, *, percent: int) -> None:
        """An object as it is now."""
        key = (owner.kind, owner.namespace, owner.name)
        before = self._shown.get(key)
        if before is not None and (before.phase != status.phase or status.phase.terminal):
            self.forget(*key)
            before = None
        if before is None:
            self._metrics.objects.labels(kind=owner.kind, phase=str(status.phase)).inc()
        runs = owner.kind == RUN_KIND and not status.phase.terminal
        rounds = self._show_run(owner, status, percent) if runs else ()
        self._shown[key] = _Shown(phase=status.phase, runs=runs, rounds=rounds)

    def _show_run(self, owner: Owner, status: RunStatus, percent: int) -> tuple[str, ...]:
        names = (owner.namespace, owner.name)
        self._metrics.run_progress.labels(*names).set(percent / 100)
        means = {
            str(entry.round): entry.validation["edit"].mean
            for entry in status.rounds
            if "edit" in entry.validation
        }
        known = {round: mean for round, mean in means.items() if mean is not None}
        for round, mean in known.items():
            self._metrics.run_reward.labels(*names, round).set(mean)
        return tuple(known)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """An object has gone."""
        shown = self._shown.pop((kind, namespace, name), None)
        if shown is None:
            return
        self._metrics.objects.labels(kind=kind, phase=str(shown.phase)).dec()
        if shown.runs:
            self._metrics.run_progress.remove(namespace, name)
            for round in shown.rounds:
                self._metrics.run_reward.remove(namespace, name, round)

    def clear(self) -> None:
        """Show none any more: another controller leads."""
        for key in list(self._shown):
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
