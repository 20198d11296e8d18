"""A tracker is told all of a run, once, beside its work: it never fails it and never delays it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tracked_run import (
    SOON_SECONDS,
    FinishedRun,
    Notebook,
    run_tracked,
    tracked_spec,
    tracker_to,
    wait_for,
)

from controller_svc.core import Phase
from controller_svc.tracking import Tracker
from controller_svc.tracking.model import TrackedRun
from controller_svc.tracking.tracker import AGAIN_SECONDS
from seal.artifacts import ArtifactStore
from seal.errors import PreconditionFailed
from seal.report import build_report


def warnings(logs: list[dict[str, object]]) -> list[object]:
    return [one["event"] for one in logs if one["log_level"] == "warning"]


async def test_a_run_is_told_as_it_goes_and_at_its_end_with_the_numbers_of_its_report(
    tmp_path: Path,
) -> None:
    notebook, store = Notebook(), ArtifactStore(str(tmp_path / "artifacts"))
    spec, tracker = tracked_spec(tmp_path, "mlflow", rounds=1), tracker_to(notebook, store)
    told = await run_tracked(spec, store, tracker)
    tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.rounds == [0, 1] and notebook.ends == [Phase.COMPLETE]
    assert {one.uid for one in notebook.written} == {notebook.written[0].uid}
    assert notebook.written[0].end is None, "the first round is told while the run goes on"
    report = build_report(store, told[-1].run)
    rounds = {one.round: one.metrics for told in notebook.written for one in told.rounds}
    for round, numbers in rounds.items():
        row = report.row(f"edit-{round}")
        assert row is not None
        reward, gain = row.metrics["score"], row.over_base["score"]
        assert (numbers["reward"], numbers["reward_low"]) == (reward.mean, reward.low)
        assert (numbers["gain"], numbers["gain_high"]) == (gain.mean, gain.high)
        assert numbers["cost/seconds"] > 0 and "retained/policy/accuracy" in numbers
    assert "selection/kept" not in rounds[0], "nothing was chosen before the first round"
    dropped = [value for name, value in rounds[1].items() if name.startswith("selection/dropped/")]
    assert rounds[1]["selection/kept"] + sum(dropped) == rounds[1]["selection/candidates"] == 9
    assert notebook.written[0].parameters["improve.lora.rank"] == str(spec.improve.lora.rank)
    assert {"report/report.html", "report/report.json"} <= notebook.files
    assert "policy/adapter_config.json" in notebook.files


def test_what_was_told_once_is_not_told_again_whoever_tells_it(finished: FinishedRun) -> None:
    notebook = Notebook()
    for _ in range(2):
        tracker = tracker_to(notebook, finished.store)
        tracker.tell(finished.told())
        tracker.close(within_seconds=SOON_SECONDS)
        assert tracker.missing(finished.told().run) == ""
    assert (notebook.rounds, notebook.ends, notebook.tries) == ([0, 1, 2], [Phase.COMPLETE], 1)
    later = finished.told()
    status = later.status.model_copy(update={"finished_seconds": 4e9, "phase": Phase.FAILED})
    tracker = tracker_to(notebook, finished.store)
    tracker.tell(replace(later, status=status))
    tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.rounds == [0, 1, 2] and notebook.ends == [Phase.COMPLETE, Phase.FAILED]
    assert len({one.uid for one in notebook.written}) == 1


def test_a_tracker_that_is_away_is_warned_of_once_and_gets_all_it_missed_when_it_is_back(
    finished: FinishedRun,
) -> None:
    notebook = Notebook()
    notebook.away = True
    tracker = tracker_to(notebook, finished.store)
    with capture_logs() as logs:
        for tries, place in enumerate((3, -2, -1), start=1):
            tracker.tell(finished.told(place))
            wait_for(lambda: notebook.tries == tries)  # noqa: B023 - waited for at once
        tracker.close(within_seconds=SOON_SECONDS)
    assert warnings(logs) == ["run not tracked", "run not wholly tracked"]
    assert "the notebook is away" in tracker.missing(finished.told().run)
    notebook.away = False
    again = tracker_to(notebook, finished.store)
    again.tell(finished.told())
    again.close(within_seconds=SOON_SECONDS)
    assert notebook.rounds == [0, 1, 2] and notebook.ends == [Phase.COMPLETE]


def test_a_run_that_stays_where_it_is_is_told_again_after_some_minutes(
    finished: FinishedRun,
) -> None:
    notebook, now, run = Notebook(), [0.0], finished.told().run
    notebook.away = True
    tracker = tracker_to(notebook, finished.store, clock=lambda: now[0])
    tracker.tell(finished.told())
    wait_for(lambda: "away" in tracker.missing(run))
    tracker.tell(finished.told())
    now[0] += AGAIN_SECONDS - 1
    tracker.tell(finished.told())
    assert notebook.tries == 1
    now[0] += 1
    notebook.away = False
    tracker.tell(finished.told())
    tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.tries == 2 and tracker.missing(run) == ""


def test_a_tracker_that_never_answers_delays_nobody(finished: FinishedRun) -> None:
    answers = threading.Event()

    class Silent(Notebook):
        def write(self, run: TrackedRun) -> None:
            super().write(run)
            answers.wait()

    silent, began = Silent(), time.monotonic()
    tracker = tracker_to(silent, finished.store)
    for place in (3, -2, -1):
        tracker.tell(finished.told(place))
    assert time.monotonic() - began < 1
    wait_for(lambda: silent.tries == 1)
    began = time.monotonic()
    with capture_logs() as logs:
        tracker.close(within_seconds=0.1)
    answers.set()
    assert time.monotonic() - began < 2 and warnings(logs) == ["run not wholly tracked"]


def test_an_end_that_is_still_being_told_is_missing(finished: FinishedRun) -> None:
    answers = threading.Event()

    class SlowAtTheEnd(Notebook):
        def write(self, run: TrackedRun) -> None:
            super().write(run)
            if run.end is not None:
                answers.wait()

    slow = SlowAtTheEnd()
    tracker = tracker_to(slow, finished.store)
    tracker.tell(finished.told(3))
    wait_for(lambda: slow.tries == 1 and not tracker.missing(finished.told().run))
    tracker.tell(finished.told())
    with capture_logs() as logs:
        tracker.close(within_seconds=0.1)
    answers.set()
    assert warnings(logs) == ["run not wholly tracked"]


def test_of_many_runs_those_that_are_wholly_told_are_forgotten_first(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.tracking.tracker.MAX_KNOWN", 3)
    notebook = Notebook()
    notebook.away = True
    tracker = tracker_to(notebook, finished.store)
    tracker.tell(finished.told())
    wait_for(lambda: "away" in tracker.missing(finished.told().run))
    notebook.away = False
    begun = finished.told(0)
    for number in range(10):
        status = begun.status.model_copy(update={"run": f"another-{number}"})
        tracker.tell(replace(begun, status=status))
        wait_for(lambda: not tracker.missing(status.run))  # noqa: B023 - waited for at once
    assert set(tracker._runs) == {finished.told().run, "another-8", "another-9"}
    tracker.close(within_seconds=SOON_SECONDS)


@pytest.mark.parametrize("fault", [ZeroDivisionError("inside"), PreconditionFailed("no library")])
def test_a_defect_of_a_library_or_its_absence_is_a_cause_and_no_crash(
    finished: FinishedRun, fault: Exception
) -> None:
    good, run = Notebook(), finished.told().run

    def open(name: str) -> Notebook:
        if name == "wandb":
            raise fault
        return good

    tracker = Tracker(finished.store, open=open)
    tracker.tell(finished.told(3, to="wandb"))
    wait_for(lambda: str(fault) in tracker.missing(run))
    tracker.tell(finished.told())
    tracker.close(within_seconds=SOON_SECONDS)
    assert good.ends == [Phase.COMPLETE], "the thread goes on"


def test_a_run_without_a_tracker_leaves_no_trace_of_one(finished: FinishedRun) -> None:
    notebook = Notebook()
    tracker = tracker_to(notebook, finished.store)
    tracker.tell(finished.told(to="none"))
    tracker.close(within_seconds=SOON_SECONDS)
    assert notebook.tries == 0 and not finished.store.list(f"{finished.told().run}/tracking")


def test_another_experiment_is_told_from_the_beginning(finished: FinishedRun) -> None:
    notebook = Notebook()
    for experiment in ("towers", "hills", "towers"):
        tracker = tracker_to(notebook, finished.store)
        tracker.tell(finished.told(experiment=experiment))
        tracker.close(within_seconds=SOON_SECONDS)
    assert [run.experiment for run in notebook.written] == ["towers", "hills"]
    assert notebook.rounds == [0, 1, 2, 0, 1, 2]


def test_a_policy_that_has_gone_or_is_not_wanted_keeps_nobody_from_the_rest(
    finished: FinishedRun,
) -> None:
    kept, gone = Notebook(), Notebook()
    tracker = tracker_to(kept, finished.store)
    tracker.tell(finished.told(adapter=False))
    tracker.close(within_seconds=SOON_SECONDS)
    adapter = finished.told().status.policies[-1].adapter
    assert adapter is not None
    finished.store.remove_directory(adapter)
    tracker = tracker_to(gone, finished.store)
    tracker.tell(finished.told(experiment="hills"))
    tracker.close(within_seconds=SOON_SECONDS)
    for notebook in (kept, gone):
        assert notebook.ends == [Phase.COMPLETE]
        assert notebook.files == {"report/report.html", "report/report.json"}
