"""A real MLflow server shows a run as its users expect, each round once, whatever dies between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import MlflowServer, mlflow_server
from structlog.testing import capture_logs
from tracked_run import SOON_SECONDS, FinishedRun, run_tracked, tracked_spec

from controller_svc.core import Phase
from controller_svc.tracking import Telling, Tracker
from controller_svc.tracking.ledger import Ledger
from seal.artifacts import ArtifactStore
from seal.errors import PreconditionFailed
from seal.report import build_report

__all__ = ["mlflow_server"]
pytest.importorskip("mlflow", reason="mlflow is not installed (extra mlflow)")


@pytest.fixture
def client(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    return MlflowClient(tracking_uri=mlflow_server.uri)


def tell(store: ArtifactStore, telling: Telling) -> str:
    """By a process of its own; what is missing afterwards."""
    tracker = Tracker(store)
    tracker.tell(telling)
    tracker.close(within_seconds=SOON_SECONDS)
    return tracker.missing(telling.run)


def runs_of(client: Any, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def steps(client: Any, run: Any, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


async def test_a_run_stands_in_its_experiment_with_parameters_rounds_report_and_policy(
    client: Any, tmp_path: Path
) -> None:
    store, spec = ArtifactStore(str(tmp_path / "artifacts")), tracked_spec(tmp_path, "mlflow")
    tracker = Tracker(store)
    told = await run_tracked(spec, store, tracker)
    tracker.close(within_seconds=SOON_SECONDS)
    assert tracker.missing(told[-1].run) == ""
    [run] = runs_of(client, "towers")
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    assert run.data.params["edit.k"] == "3" and run.data.params["improve.lora.rank"]
    assert run.data.tags["seal.model"] == spec.model and run.data.tags["seal.store"]
    assert run.data.tags["mlflow.note.content"] == build_report(store, "demo").headline
    report = build_report(store, "demo")
    for name, kind in (("reward", "metrics"), ("gain", "over_base")):
        history = client.get_metric_history(run.info.run_id, name)
        low = client.get_metric_history(run.info.run_id, f"{name}_low")
        rows = [report.row(f"edit-{round}") for round in range(3)]
        estimates = [getattr(row, kind)["score"] for row in rows]
        assert [metric.step for metric in history] == [0, 1, 2]
        assert [metric.value for metric in history] == [one.mean for one in estimates]
        assert [metric.value for metric in low] == [one.low for one in estimates]
    assert steps(client, run, "selection/kept") == [1, 2]
    files = {
        file.path
        for folder in ("report", "policy")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"report/report.html", "report/report.json", "policy/adapter_config.json"} <= files
    copy = Path(client.download_artifacts(run.info.run_id, "policy", str(tmp_path)))
    adapter = told[-1].status.policies[-1].adapter
    assert adapter is not None
    with store.fetch_directory(adapter) as directory:
        for file in directory.iterdir():
            assert (copy / file.name).read_bytes() == file.read_bytes()


def test_a_controller_that_dies_before_it_has_marked_a_round_logs_it_only_once(
    client: Any, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = finished.told(experiment="dies")
    with monkeypatch.context() as dying:
        dying.setattr(Ledger, "add_round", _die)
        assert "power cut" in tell(finished.store, telling)
    assert tell(finished.store, telling) == ""
    [run] = runs_of(client, "dies")
    for name in ("reward", "gain", "cost/seconds", "validation/edit/f1"):
        assert steps(client, run, name) == [0, 1, 2]


def _die(*_: object) -> None:
    raise RuntimeError("power cut")


def test_a_resumed_run_goes_on_in_the_same_run_and_what_changed_stands_beside(
    client: Any, finished: FinishedRun
) -> None:
    telling = finished.told(experiment="resumed")
    failed = telling.status.model_copy(
        update={"phase": Phase.FAILED, "finished_seconds": 1_800_000_000.0}
    )
    one_round = telling.spec.model_copy(update={"rounds": 1})
    assert tell(finished.store, replace(telling, spec=one_round, status=failed)) == ""
    [run] = runs_of(client, "resumed")
    assert (run.info.status, steps(client, run, "reward")) == ("FAILED", [0, 1])
    assert run.info.end_time == 1_800_000_000_000
    goes_on = telling.status.model_copy(update={"phase": Phase.RUNNING, "finished_seconds": None})
    assert tell(finished.store, replace(telling, status=goes_on)) == ""
    [run] = runs_of(client, "resumed")
    assert (run.info.status, steps(client, run, "reward")) == ("RUNNING", [0, 1, 2])
    assert tell(finished.store, telling) == ""
    [run] = runs_of(client, "resumed")
    assert run.info.status == "FINISHED" and run.data.params["rounds"] == "1"
    assert run.data.tags["seal.resumed.rounds"] == "2"


def test_a_server_that_is_killed_gets_what_it_missed_when_it_is_back(
    client: Any, finished: FinishedRun, mlflow_server: MlflowServer
) -> None:
    telling = finished.told(experiment="killed")
    mlflow_server.kill()
    with capture_logs() as logs:
        assert "is away" in tell(finished.store, telling)
    assert {one["event"] for one in logs} >= {"run not tracked", "run not wholly tracked"}
    mlflow_server.start()
    assert tell(finished.store, telling) == ""
    [run] = runs_of(client, "killed")
    assert steps(client, run, "reward") == [0, 1, 2] and run.info.status == "FINISHED"


def test_an_experiment_that_was_deleted_is_refused_by_its_field(
    client: Any, finished: FinishedRun
) -> None:
    client.delete_experiment(client.create_experiment("deleted"))
    assert "experiment 'deleted' is deleted" in tell(
        finished.store, finished.told(experiment="deleted")
    )


def test_no_message_holds_a_token_or_a_password(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:pass-of-url@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-env")
    with capture_logs() as logs:
        missing = tell(finished.store, finished.told(experiment="secret"))
    assert "127.0.0.1" in missing
    for text in (missing, str(logs)):
        assert "pass-of-url" not in text and "token-of-env" not in text


def test_an_environment_that_names_no_server_is_told_so(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller_svc.tracking import open_sink

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(PreconditionFailed, match="MLFLOW_TRACKING_URI is not set"):
        open_sink("mlflow")
