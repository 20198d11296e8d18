"""What becomes of a run or an adaptation of this process, told to the log and the metrics."""

from __future__ import annotations

import time

from controller_svc.core import (
    Reason,
    RunStatus,
    Transition,
    share_of,
    share_of_stage,
    transitions,
)
from controller_svc.counted import count_news
from controller_svc.shown_runs import ShownRuns
from controller_svc.transition import transition
from controller_svc.worker.progress import TaskProgress
from seal.metrics import Metrics, metrics
from seal.resources import ADAPTATION_KIND, RUN_KIND
from seal.settings import RunSpec, Spec


class LocalStory:
    """Tells it of one run or adaptation, as the controller of a cluster does of its objects."""

    def __init__(
        self,
        spec: Spec,
        *,
        namespace: str,
        name: str,
        metrics: Metrics = metrics,
    ) -> None:
        """`namespace`, `name`: what its manifest calls it."""
        self._spec, self._place = spec, (namespace, name)
        self._kind = RUN_KIND if isinstance(spec, RunSpec) else ADAPTATION_KIND
        self._metrics = metrics
        self._runs = ShownRuns(metrics.runs)
        self._status: RunStatus | None = None
        self._tasks: dict[int, TaskProgress] = {}
        self._share = 0.0

    def tell(self, before: RunStatus, after: RunStatus) -> None:
        """What became of it: the second status has just been saved over the first."""
        namespace, name = self._place
        for one in transitions(before, after):
            transition(self._metrics, one, kind=self._kind, namespace=namespace, name=name)
        count_news(self._metrics, before, after)
        self.show(after)

    def resumed(self, status: RunStatus) -> None:
        """Its owner has taken it up again: it had failed, was stopped, or is given more rounds."""
        namespace, name = self._place
        stage = status.current.name if status.current is not None else ""
        message = "taken up again by its owner"
        one = Transition(reason=Reason.RESUMED, message=message, warning=False, stage=stage)
        transition(self._metrics, one, kind=self._kind, namespace=namespace, name=name)

    def show(self, status: RunStatus) -> None:
        """How it is now."""
        if (status.round, status.stage) != (
            self._status and (self._status.round, self._status.stage)
        ):
            self._tasks = {}
        self._status = status
        self._show()

    def on_progress(self, progress: TaskProgress) -> None:
        """A task of its stage got on."""
        self._tasks[progress.shard] = progress
        self._show()

    def _show(self) -> None:
        status = self._status
        if status is None or self._kind != RUN_KIND:
            return
        stage_share = self._stage_share(status)
        self._share = max(self._share, share_of(self._spec, status, stage_share))
        self._runs.show(
            self._place,
            status,
            share=self._share,
            stage_share=stage_share,
            now_seconds=time.time(),
        )

    def _stage_share(self, status: RunStatus) -> float:
        current = status.current
        if current is None:
            return 0.0
        return share_of_stage(current, {shard: one.share for shard, one in self._tasks.items()})
