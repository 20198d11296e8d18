"""A cluster's controller tells trackers of runs as a laptop does, whichever of them leads."""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_office import Office, small_adaptation, small_run
from tracked_run import SOON_SECONDS, FinishedRun, Notebook, tracker_to, wait_for

from controller_svc.core import Phase
from controller_svc.tracking import AGAIN_SECONDS
from seal.report import build_report

TRACKED = {"tracking": {"to": "mlflow", "experiment": "towers"}}


@pytest.fixture
def notebook(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """The cluster's pods here leave no records to report on: the report is another run's."""
    report = build_report(finished.store, finished.told().run)
    monkeypatch.setattr("controller_svc.tracking.reading._report", lambda store, telling: report)
    return Notebook()


def led(office: Office, notebook: Notebook) -> None:
    """Another controller leads, in a process with a tracker of its own."""
    office.tracker = tracker_to(notebook, office.store)
    office.restart()


async def test_a_run_is_told_under_its_owners_name_once_whoever_leads(
    tmp_path: Path, notebook: Notebook
) -> None:
    office = Office(tmp_path / "store")
    led(office, notebook)
    run = office.submit(small_run(**TRACKED))
    adapts = office.submit(small_adaptation())
    await office.to_the_end(run, adapts)
    assert office.tracker is not None
    office.tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.ends == [Phase.COMPLETE] and notebook.rounds == [0, 1]
    assert {one.name for one in notebook.written} == {"demo"}
    assert notebook.written[0].tags["seal.run"] == office.status(run).run
    tries = notebook.tries
    led(office, notebook)
    await office.look(run)
    office.tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.tries == tries
    assert await office.look(run) is None, "nothing is left to tell"


async def test_a_run_whose_tracker_was_away_at_its_end_is_looked_at_until_it_has_all(
    tmp_path: Path, notebook: Notebook
) -> None:
    office = Office(tmp_path / "store")
    notebook.away = True
    led(office, notebook)
    run = office.submit(small_run(**TRACKED))
    await office.to_the_end(run)
    assert office.tracker is not None
    name, tracker = office.status(run).run, office.tracker
    wait_for(lambda: "away" in tracker.missing(name))
    assert office.status(run).phase is Phase.COMPLETE
    assert await office.look(run) == AGAIN_SECONDS
    tracker.close(within_seconds=SOON_SECONDS)
    notebook.away = False
    led(office, notebook)
    await office.look(run)
    office.tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.rounds == [0, 1] and notebook.ends == [Phase.COMPLETE]
