"""The experiment tracker of a run on this machine: told as the run goes, waited for at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller_svc.core import RunStatus
from controller_svc.tracking import Telling, Tracker, open_sink
from seal.artifacts import ArtifactStore
from seal.resources import RestEMRun
from seal.settings import RunSpec

END_SECONDS = 120.0
"""At the end of a run: how long its tracker may take for the rest, the policy's files included."""
STOP_SECONDS = 2.0
"""The same after Ctrl-C, or where the run came to an error."""


def check_tracker(spec: RunSpec) -> None:
    """Raises PreconditionFailed if a run's tracker is not installed, or nobody says where it is."""
    if spec.tracking.to != "none":
        open_sink(spec.tracking.to)


@contextmanager
def tracked(store: ArtifactStore, manifest: RestEMRun) -> Iterator[Callable[[RunStatus], None]]:
    """What tells the run's tracker of each status, as long as the block lasts."""
    tracker, wait_seconds = Tracker(store), STOP_SECONDS

    def tell(status: RunStatus) -> None:
        tracker.tell(Telling(name=manifest.name, spec=manifest.spec, status=status))

    try:
        yield tell
        wait_seconds = END_SECONDS
    finally:
        tracker.close(within_seconds=wait_seconds)
