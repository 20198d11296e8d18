"""A run on fake services whose tracker is told, as `seal run` does it."""

from __future__ import annotations

from pathlib import Path

from controller_harness import IMPATIENT, RUN, small_spec
from fake_services import Fakes, serve_fakes

from controller_svc.core import RunStatus
from controller_svc.local.world import run_local
from controller_svc.tracking import Telling, Tracker
from controller_svc.worker.progress import SilentObserver
from seal.artifacts import ArtifactStore
from seal.resources import RestEMRun
from seal.settings import RunSpec, TrackingSettings

EXPERIMENT = "towers"


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
