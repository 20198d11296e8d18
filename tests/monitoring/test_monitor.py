"""A real Prometheus scrapes what a process serves, and the dashboards are drawn from it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from charts.dashboards import monitor
from charts.dashboards.board import Panel
from charts.dashboards.boards import BOARDS, LEARNING, OVERVIEW
from charts.dashboards.draw import Prometheus, Series, draw, plain, worded
from seal.config import load_run
from seal.metrics import Metrics

ROOT = Path(__file__).parents[2]
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not on the PATH (Debian: apt-get install prometheus)",
)


@needs_prometheus
def test_what_a_process_serves_is_scraped_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SCRAPE_SECONDS", 1)
    metrics = Metrics(CollectorRegistry())
    metrics.controller_leading.set(1)
    values = {
        "seal_run_progress_ratio": {(): 0.25},
        "seal_run_retained_score": {("0", "policy"): 0.5, ("1", "edit"): 0.45},
        "seal_run_reward": {("0", "validate", "edit"): 0.4, ("10", "validate", "edit"): 0.6},
        "seal_run_reward_low": {("10", "validate", "edit"): 0.5},
        "seal_run_reward_high": {("10", "validate", "edit"): 0.8},
    }
    metrics.runs.show(("team", "demo"), values, ended=False)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    started = time.time()
    try:
        with monitor.prometheus([f"127.0.0.1:{server.server_port}"]) as address:
            source = Prometheus(address=address, start_seconds=started - 60, end_seconds=started)
            progress = next(one for one in OVERVIEW.panels if one.title == "Progress")
            found: list[Series] = []
            while not found and time.time() < started + 30:
                time.sleep(0.5)
                source = Prometheus(
                    address=address, start_seconds=started - 60, end_seconds=time.time()
                )
                found = source.ask(progress)
            assert [(one.legend, one.values_T[-1]) for one in found] == [("team demo", 0.25)]
            cost = next(
                one for one in LEARNING.panels if one.title == "What learning an edit costs"
            )
            (series,) = source.ask(cost)
            assert series.labels["row"] == "team demo 1"
            assert series.values_T[-1] == pytest.approx(0.05)
            reward = next(one for one in OVERVIEW.panels if one.title == "Held-out reward by round")
            seen = {
                (one.labels["row"], one.labels["column"]): float(one.values_T[-1])
                for one in source.ask(reward)
            }
            assert seen == {
                ("team demo 0", "mean"): 0.4,
                ("team demo 10", "low"): 0.5,
                ("team demo 10", "mean"): 0.6,
                ("team demo 10", "high"): 0.8,
            }
            assert reward.title not in draw(OVERVIEW, source, tmp_path / "overview.png")
            panels = list(LEARNING.panels)
            empty = draw(LEARNING, source, tmp_path / "learning.png")
            assert len(empty) == len(panels) - 4 and cost.title not in empty
    finally:
        server.shutdown()
        thread.join()
    assert (tmp_path / "learning.png").stat().st_size > 10_000


class OnlyProgress(Prometheus):
    """Of all panels it knows one."""

    def ask(self, panel: Panel) -> list[Series]:
        if panel.title != "Progress":
            return []
        return [Series("demo", {"run": "demo"}, np.array([0.0, 1.0]), np.array([0.0, 0.5]))]


def test_a_panel_without_data_is_left_out_and_named_beneath(tmp_path: Path) -> None:
    source = OnlyProgress(address="http://unused", start_seconds=0.0, end_seconds=60.0)
    empty = draw(OVERVIEW, source, tmp_path / "overview.svg")
    assert len(empty) == len(list(OVERVIEW.panels)) - 1
    texts = re.findall("<!-- (.+) -->", (tmp_path / "overview.svg").read_text("utf-8"))
    assert "Progress" in texts and f"No data here: {', '.join(empty)}" in texts
    assert not set(texts) & set(empty)


@needs_prometheus
def test_ctrl_c_ends_the_watching_and_draws_what_was_seen(tmp_path: Path) -> None:
    metrics = Metrics(CollectorRegistry())
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    words = ["--target", f"127.0.0.1:{server.server_port}", "--out", str(tmp_path / "img")]
    with subprocess.Popen(
        [sys.executable, "-m", "charts.dashboards.monitor", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "Ctrl-C ends it" in process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its children
            said = process.stdout.read()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            server.shutdown()
            thread.join()
    for board in BOARDS:
        assert f"{board.title}: {tmp_path / 'img' / board.uid}.png; no data:" in said
        assert (tmp_path / "img" / f"{board.uid}.png").stat().st_size > 10_000


@needs_prometheus
def test_a_command_is_watched_to_its_end_and_its_exit_code_is_the_answer(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--", "run", str(tmp_path / "absent.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "charts.dashboards.monitor", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "absent.yaml" in done.stderr
    assert (tmp_path / "seal-overview.png").exists()
    assert "Step time" in done.stdout, "nothing was done: the panel has no data, and it is said"


def test_without_prometheus_it_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["monitor", "--out", str(tmp_path), "--target", "a:1"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert monitor.main() == 2
    assert "apt-get install prometheus" in capsys.readouterr().err


def test_the_run_that_is_watched_is_one_that_can_be_run() -> None:
    manifest = load_run(Path(monitor.__file__).parent / "run.yaml")
    assert manifest.name == "monitored" and manifest.spec.rounds == 2


def test_a_variable_stands_for_all_of_its_values() -> None:
    assert plain('a{run=~"$run"}[$__rate_interval]', 60.0) == 'a{run=~".*"}[1m]'
    assert plain("a[$__range]", 90.4) == "a[90s]"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.125, "percentunit", "12.5 %"),
        (0.02, "s", "20 ms"),
        (90.0, "s", "90 s"),
        (1000.0, "s", "1,000 s"),
        (2.5e9, "bytes", "2.5 GB"),
        (1500.0, "suffix: tok/s", "1.5 ktok/s"),
        (0.5, "ops", "0.5/s"),
        (12_000.0, "short", "12 k"),
    ],
)
def test_an_axis_is_worded_in_its_unit(value: float, unit: str, words: str) -> None:
    assert worded(value, unit) == words  # type: ignore[arg-type]
