"""`seal run` tells the run's tracker, waits for it at the end, and says what it has missed."""

from __future__ import annotations

import pytest
from command import RUN, seal
from tracked_run import Notebook

from controller_svc.core import Phase
from controller_svc.tracking import Tracker
from seal.artifacts import ArtifactStore

pytestmark = pytest.mark.usefixtures("here", "fakes")
TRACKED = (*RUN, "--set", "tracking.to=mlflow")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    made = Notebook()

    def tracker(store: ArtifactStore) -> Tracker:
        return Tracker(store, open=lambda _: made)

    monkeypatch.setattr("controller_svc.cli.tracking.Tracker", tracker)
    monkeypatch.setattr("controller_svc.cli.tracking.open_sink", lambda _: made)
    return made


def test_a_run_is_told_and_one_whose_tracker_was_away_is_told_by_its_resume(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.away = True
    assert seal(*TRACKED) == 0
    said = capsys.readouterr().err
    assert said.count("run not tracked") == 1 and said.count("run not wholly tracked") == 1
    assert "the notebook is away" in said
    notebook.away = False
    assert seal(*TRACKED, "--resume") == 0
    assert notebook.rounds == [0, 1] and notebook.ends == [Phase.COMPLETE]
    assert "run not tracked" not in capsys.readouterr().err
    assert seal(*TRACKED, "--resume") == 0
    assert notebook.rounds == [0, 1] and notebook.ends == [Phase.COMPLETE]


def test_a_tracker_that_nobody_says_the_place_of_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert seal(*TRACKED) != 0
    said = capsys.readouterr().err
    assert "MLFLOW_TRACKING_URI" in said or "seal-kubernetes[mlflow]" in said
    assert seal("list") == 0 and "tiny" not in capsys.readouterr().out
