"""One finished run for all tests here: what is told is read from the store, whoever tells it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from controller_harness import RUN
from tracked_run import FinishedRun, run_tracked, tracked_spec

from controller_svc.tracking import Telling, Tracker
from seal.artifacts import ArtifactStore


@pytest.fixture(scope="session")
def run_of_two_rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Telling]]:
    directory = tmp_path_factory.mktemp("tracked")
    store = ArtifactStore(str(directory / "artifacts"))
    spec = tracked_spec(directory, "none")
    return directory / "artifacts", asyncio.run(run_tracked(spec, store, Tracker(store)))


@pytest.fixture
def finished(
    run_of_two_rounds: tuple[Path, list[Telling]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FinishedRun:
    """Its report has a plain page: drawing the real one takes a second."""
    source, tellings = run_of_two_rounds
    monkeypatch.setattr("controller_svc.tracking.reading.render_html", lambda report: report.run)
    shutil.copytree(source, tmp_path / "artifacts")
    assert {telling.run for telling in tellings} == {RUN}
    return FinishedRun(ArtifactStore(str(tmp_path / "artifacts")), tuple(tellings))
