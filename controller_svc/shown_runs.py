"""The runs at work as the metrics show them, and when each last got on."""

from __future__ import annotations

from dataclasses import dataclass

from controller_svc.core import RunStatus
from controller_svc.core.suspension import is_suspended
from controller_svc.run_values import run_values
from seal.records import Stage
from seal.run_metrics import Place, RunMetrics


@dataclass(frozen=True)
class _Reached:
    """How far a run was."""

    round: int
    stage: Stage | None
    completed: str
    suspended: bool
    """Stopping and going on count too: whoever goes on is given time before it is late."""
    stage_share: float
    at_seconds: float

    def is_no_further_than(self, other: _Reached) -> bool:
        mine, its = ((one.round, one.stage, one.completed, one.suspended) for one in (self, other))
        return mine == its and self.stage_share <= other.stage_share


class ShownRuns:
    """Shows runs, each until some time after its end."""

    def __init__(self, shown: RunMetrics) -> None:
        self._shown = shown
        self._reached: dict[Place, _Reached] = {}

    def show(
        self,
        place: Place,
        status: RunStatus,
        *,
        share: float,
        now_seconds: float,
        stage_share: float | None = None,
    ) -> None:
        """A run as it is now; one that had ended when it was first seen is not shown.

        `share`: of the run that is done; `stage_share`: of the stage at work, None if nobody has
        counted it; `now_seconds`: Unix time.
        """
        before, ended = self._reached.get(place), status.phase.terminal
        if before is None and ended:
            return
        current = status.current
        reached = _Reached(
            round=status.round,
            stage=status.stage,
            completed=current.completed if current is not None else "",
            suspended=is_suspended(status),
            stage_share=stage_share or 0.0,
            at_seconds=now_seconds,
        )
        if before is not None and reached.is_no_further_than(before):
            reached = before
        values = run_values(status, share=share, got_on_at=reached.at_seconds)
        self._shown.show(place, values, ended=ended)
        if ended:
            del self._reached[place]
        else:
            self._reached[place] = reached

    def forget(self, place: Place) -> None:
        """A run has gone, or is another's to show."""
        self._reached.pop(place, None)
        self._shown.forget(place)
