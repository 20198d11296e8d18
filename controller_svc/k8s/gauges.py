"""The controller's metrics of objects: how many are where, how far runs are, what came of them."""

from __future__ import annotations

from controller_svc.core import Phase, RunStatus, adaptation_state
from controller_svc.counted import count_news
from controller_svc.k8s.jobs import Owner
from controller_svc.shown_runs import ShownRuns
from seal.metrics import Metrics
from seal.resources import RUN_KIND

Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""


class ObjectGauges:
    """What the metrics say of the objects of one controller's turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._phases: dict[Key, Phase] = {}
        self._runs = ShownRuns(metrics.runs)

    def show(
        self,
        owner: Owner,
        status: RunStatus,
        *,
        percent: int,
        now_seconds: float,
        stage_share: float | None = None,
    ) -> None:
        """An object as it is now. `stage_share`: of its stage, None if it was not counted."""
        key = (owner.kind, owner.namespace, owner.name)
        if self._phases.get(key) != status.phase:
            self._count(key, -1)
            self._phases[key] = status.phase
            self._count(key, 1)
        if owner.kind == RUN_KIND:
            self._runs.show(
                (owner.namespace, owner.name),
                status,
                share=percent / 100,
                now_seconds=now_seconds,
                stage_share=stage_share,
            )

    def _count(self, key: Key, change: int) -> None:
        phase = self._phases.get(key)
        if phase is not None:
            self._metrics.objects.labels(kind=key[0], phase=str(phase)).inc(change)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """An object has gone."""
        key = (kind, namespace, name)
        self._count(key, -1)
        if self._phases.pop(key, None) is not None and kind == RUN_KIND:
            self._runs.forget((namespace, name))

    def clear(self) -> None:
        """Show none any more: another controller leads."""
        for key in list(self._phases):
            self.forget(*key)

    def count(self, before: RunStatus, after: RunStatus) -> None:
        """Count what stages came to since the status before, and an adaptation that has ended."""
        count_news(self._metrics, before, after)
        if after.adaptation is not None and after.phase.terminal and not before.phase.terminal:
            self._metrics.adaptations_ended.labels(state=str(adaptation_state(after))).inc()
