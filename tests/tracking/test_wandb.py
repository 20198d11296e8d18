"""W&B's offline files hold a run as its users expect; read back with W&B's own inspector."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tracked_run import SOON_SECONDS, FinishedRun, run_tracked, tracked_spec

from controller_svc.core import Phase
from controller_svc.tracking import Telling, Tracker, open_sink
from seal.artifacts import ArtifactStore
from seal.errors import PreconditionFailed
from seal.report import build_report

pytest.importorskip("wandb", reason="wandb is not installed (extra wandb)")
READ = "from wandb.cli.cli import cli; cli(['leet', 'inspect', '--json', '{file}'])"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where offline sessions go."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path / "wandb"


def tell(store: ArtifactStore, telling: Telling) -> str:
    """By a process of its own; what is missing afterwards."""
    tracker = Tracker(store)
    tracker.tell(telling)
    tracker.close(within_seconds=SOON_SECONDS)
    return tracker.missing(telling.run)


def sessions(directory: Path) -> list[list[dict[str, Any]]]:
    """The records of each session, in order."""
    found = []
    for file in sorted(directory.glob("offline-run-*/run-*.wandb")):
        said = subprocess.run(
            [sys.executable, "-c", READ.format(file=file)],
            check=True,
            capture_output=True,
            text=True,
        )
        found.append([json.loads(line) for line in said.stdout.splitlines()])
    return found


def of_type(records: list[dict[str, Any]], type: str) -> list[dict[str, Any]]:
    return [record[type] for record in records if record["type"] == type]


def logged(session: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Numbers by step."""
    return {record["step"].get("num", 0): record["item"] for record in of_type(session, "history")}


async def test_a_run_is_written_with_config_rounds_report_and_policy_under_one_id(
    directory: Path, tmp_path: Path
) -> None:
    store, spec = ArtifactStore(str(tmp_path / "artifacts")), tracked_spec(tmp_path, "wandb")
    tracker = Tracker(store)
    told = await run_tracked(spec, store, tracker)
    tracker.close(within_seconds=SOON_SECONDS)
    assert tracker.missing(told[-1].run) == ""
    written = sessions(directory)
    runs = [one for session in written for one in of_type(session, "run")]
    uid = store.read_bytes("demo/tracking/uid").decode()
    assert {(run["run_id"], run["project"], run["display_name"]) for run in runs} == {
        (uid, "towers", "demo")
    }
    assert runs[0]["config"]["update"]["edit.k"] == "3" and "seal" in runs[0]["tags"]
    steps = [step for session in written for step in logged(session)]
    assert steps == [0, 1, 2], "each round once, over all sessions"
    numbers = {step: item for session in written for step, item in logged(session).items()}
    report = build_report(store, "demo")
    for round in range(3):
        row = report.row(f"edit-{round}")
        assert row is not None
        reward, gain = row.metrics["score"], row.over_base["score"]
        assert numbers[round]["reward"] == reward.mean
        assert numbers[round]["reward_high"] == reward.high
        assert numbers[round]["gain"] == gain.mean
    artifacts = [one for session in written for one in of_type(session, "artifact")]
    assert {(one["name"], one["type"]) for one in artifacts} == {
        ("demo-report", "report"),
        ("demo-policy", "model"),
    }
    files = {entry["path"] for one in artifacts for entry in one["manifest"]["contents"]}
    assert {"report.html", "report.json", "adapter_config.json"} <= files


def test_a_resumed_run_adds_a_session_of_the_same_run_without_what_it_has(
    directory: Path, finished: FinishedRun
) -> None:
    telling = finished.told(to="wandb")
    failed = telling.status.model_copy(update={"phase": Phase.FAILED, "finished_seconds": 1.8e9})
    one_round = telling.spec.model_copy(update={"rounds": 1})
    assert tell(finished.store, replace(telling, spec=one_round, status=failed)) == ""
    assert tell(finished.store, telling) == ""
    first, second = sessions(directory)
    assert (list(logged(first)), list(logged(second))) == ([0, 1], [2])
    assert of_type(first, "run")[0]["run_id"] == of_type(second, "run")[0]["run_id"]
    assert of_type(second, "run")[0]["resume"] is True
    assert of_type(first, "exit")[0]["exit_code"] == 1
    assert of_type(second, "exit")[0].get("exit_code", 0) == 0


def test_a_server_that_is_away_fails_nothing_and_no_message_holds_the_key(
    directory: Path, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "k" * 40
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr("controller_svc.tracking.wandb.START_SECONDS", 3.0)
    with capture_logs() as logs:
        missing = tell(finished.store, finished.told(to="wandb"))
    assert "127.0.0.1:9 is away" in missing and key not in missing
    assert key not in str(logs)
    assert "run not wholly tracked" in {one["event"] for one in logs}


def test_without_a_key_nobody_is_asked_for_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PreconditionFailed, match="there is no key for W&B"):
        open_sink("wandb")
