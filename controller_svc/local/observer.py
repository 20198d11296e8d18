"""Who watches a run of this process."""

from __future__ import annotations

from typing import Protocol

from controller_svc.core import RunStatus
from controller_svc.worker.progress import TaskProgress


class Observer(Protocol):
    """Who watches a run. Called on the event loop: return quickly, never raise."""

    def on_status(self, status: RunStatus) -> None:
        """The status changed and is saved."""

    def on_progress(self, progress: TaskProgress) -> None:
        """A task got on."""


class SilentObserver:
    """Watches nothing."""

    def on_status(self, status: RunStatus) -> None:
        """Ignore it."""

    def on_progress(self, progress: TaskProgress) -> None:
        """Ignore it."""


SILENT = SilentObserver()
