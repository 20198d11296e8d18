"""A run on fake services whose tracker is told, as `seal run` does it, and a tracker to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from controller_harness import IMPATIENT, RUN, small_spec
from fake_services import Fakes, serve_fakes

from controller_svc.core import Phase, RunStatus
from controller_svc.local.observer import SilentObserver
from controller_svc.local.world import run_local
from controller_svc.tracking import Telling, Tracker
from controller_svc.tracking.model import TrackedRun
from seal.artifacts import ArtifactStore
from seal.errors import Transient
from seal.resources import RestEMRun
from seal.settings import RunSpec, TrackingSettings

EXPERIMENT = "towers"
SOON_SECONDS = 120.0
"""On a busy machine, too."""


def tracked_spec(directory: Path, to: str, **changes: object) -> RunSpec:
    tracking = TrackingSettings.model_validate({"to": to, "experiment": EXPERIMENT})
    return small_spec(directory, **({"tracking": tracking} | changes))


class Telltale(SilentObserver):
    """Tells a tracker of each status, and remembers the tellings."""

    def __init__(self, spec: RunSpec, tracker: Tracker) -> None:
        self._spec, self._tracker = spec, tracker
        self.told: list[Telling] = []

    def on_status(self, status: RunStatus) -> None:
        self.told.append(Telling(name=RUN, spec=self._spec, status=status))
        self._tracker.tell(self.told[-1])


async def run_tracked(
    spec: RunSpec, store: ArtifactStore, tracker: Tracker, *, resume: bool = False
) -> list[Telling]:
    """A run to its end; what was told on the way."""
    telltale = Telltale(spec, tracker)
    async with serve_fakes(Fakes(store=store)) as addresses:
        await run_local(
            RestEMRun.of(RUN, spec),
            root=store.root_uri,
            services=addresses,
            resume=resume,
            progress=telltale,
            settings=IMPATIENT,
        )
    return telltale.told


@dataclass(frozen=True)
class FinishedRun:
    """A copy of the run, for one test."""

    store: ArtifactStore
    tellings: tuple[Telling, ...]

    def told(self, place: int = -1, **tracking: object) -> Telling:
        """One of its tellings, with another tracker."""
        telling = self.tellings[place]
        chosen = TrackingSettings.model_validate(
            {"to": "mlflow", "experiment": "towers"} | tracking
        )
        return replace(telling, spec=telling.spec.model_copy(update={"tracking": chosen}))


class Notebook:
    """A sink that remembers; while it is away it takes nothing."""

    place = "notebook"

    def __init__(self) -> None:
        self.written: list[TrackedRun] = []
        self.files: set[str] = set()
        self.away = False
        self.tries = 0

    def write(self, run: TrackedRun) -> None:
        self.tries += 1
        if self.away:
            raise Transient("the notebook is away")
        self.written.append(run)
        for name, directory in run.end.directories.items() if run.end else ():
            self.files |= {f"{name}/{file.name}" for file in directory.iterdir()}

    @property
    def rounds(self) -> list[int]:
        return [one.round for run in self.written for one in run.rounds]

    @property
    def ends(self) -> list[Phase]:
        return [run.end.phase for run in self.written if run.end is not None]


def tracker_to(
    sink: Notebook, store: ArtifactStore, clock: Callable[[], float] = time.monotonic
) -> Tracker:
    return Tracker(store, open=lambda _: sink, clock=clock)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
