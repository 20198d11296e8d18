"""A real Prometheus scrapes the release's pods, as its PodMonitor says, while a run goes on.

It scrapes pods by their addresses: the tests have to be where those are reached.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from release import REPOSITORY, Release, call

from charts.dashboards.boards import BOARDS
from charts.dashboards.draw import Prometheus, draw
from charts.dashboards.monitor import SCRAPE_SECONDS, prometheus
from controller_svc.core import Phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

WATCHED = REPOSITORY / "charts/dashboards/run.yaml"
SMALLER = {"rounds": 1, "data": {"trainContexts": 2, "validationContexts": 2}}
"""Two passages have an interval; one round shows each stage."""
NOT_ON_CPUS = {"seal_run_gpu_seconds"}
STILL = {
    "seal_controller_leading",
    "seal_engine_memory_estimate_bytes",
    "seal_engine_memory_limit_bytes",
    "seal_engine_slots",
    "seal_waiting_calls",  # so few calls never fill a queue
}
"""What there is, and what a run without trouble does not change."""
EMPTY = {"GPU seconds by stage", "Looks in vain", "Calls that failed, by code"}
"""Panels that a run on CPUs without trouble leaves without data."""
CONNECT_SECONDS = 5.0
_METRIC = re.compile(r"(?<!:)\b(?:seal|grpc_server)_[a-z0-9_]+\b(?!:)")
"""Names with colons are those of recording rules."""


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has seen a run from before its beginning to its end."""

    targets: tuple[str, ...]
    source: Prometheus

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        address = f"{self.source.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=30) as reply:
            return json.load(reply)["data"]

    def series(self, metric: str) -> list[list[tuple[float, str]]]:
        """Each series of a metric: all that was scraped of it."""
        seconds = round(time.time() - self.source.start_seconds)
        found = self.ask("query", query=f"{metric}[{seconds}s]")["result"]
        return [[(time, value) for time, value in one["values"]] for one in found]

    def moved(self, metric: str) -> bool:
        """Whether a series of it has changed, or has come once the run was there."""
        began = self.source.start_seconds + 5 * SCRAPE_SECONDS
        return any(
            len({value for _, value in one}) > 1 or one[0][0] > began for one in self.series(metric)
        )


def monitored(release: Release, directory: Path) -> list[str]:
    """Addresses that the release's PodMonitor would have Prometheus scrape."""
    values = directory / "values.yaml"
    values.write_text(release.helm_values(), encoding="utf-8")
    command = [
        "helm",
        "template",
        "seal",
        "charts/seal",
        "-n",
        release.namespace,
        "-f",
        str(values),
    ]
    command += ["-s", "templates/monitoring.yaml", "--set", "monitoring.podMonitor.enabled=true"]
    (monitor,) = (
        one
        for one in yaml.safe_load_all(call(command))
        if one is not None and one["kind"] == "PodMonitor"
    )
    selector, (endpoint,) = monitor["spec"]["selector"], monitor["spec"]["podMetricsEndpoints"]
    chosen = [f"{label}={value}" for label, value in selector["matchLabels"].items()]
    chosen += [
        f"{one['key']} {one['operator'].lower()} ({','.join(one['values'])})"
        for one in selector["matchExpressions"]
    ]
    return [
        f"{pod['status']['podIP']}:{port['containerPort']}"
        for pod in release.get("pods", "-l", ",".join(chosen))["items"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port["name"] == endpoint["port"] and "deletionTimestamp" not in pod["metadata"]
    ]


@contextmanager
def scraping(release: Release, directory: Path) -> Iterator[tuple[list[str], str]]:
    """A Prometheus that scrapes the release: (whom, its address)."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on the PATH (Debian: apt-get install prometheus)")
    targets = monitored(release, directory)
    for target in targets:
        host, _, port = target.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            pytest.skip(f"the pod at {target} is not reached from here: {error}")
    with prometheus(targets, labels={"namespace": release.namespace}) as address:
        yield targets, address


@pytest.fixture(scope="module")
def watched(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The run, scraped from before its beginning to its end."""
    started = time.time()
    with scraping(release, tmp_path_factory.mktemp("monitor")) as (targets, address):
        time.sleep(5 * SCRAPE_SECONDS)
        run = release.wait_for(release.apply_run("scraped", file=WATCHED, **SMALLER))
        time.sleep(3 * SCRAPE_SECONDS)
        assert run.status is not None and run.status.phase is Phase.COMPLETE, run.body
        source = Prometheus(address=address, start_seconds=started, end_seconds=time.time())
        yield Watched(tuple(targets), source)
    release.kubectl("delete", "restemrun", "scraped", "--timeout=120s")


def names(watched: Watched) -> list[str]:
    """Of all metrics that a panel, a variable or an alert asks for."""
    groups = watched.ask("rules")["groups"]
    asked = [rule["query"] for group in groups for rule in group["rules"]]
    asked += [query.expr for board in BOARDS for panel in board.panels for query in panel.queries]
    asked += [variable.query for board in BOARDS for variable in board.variables]
    return sorted({name for expr in asked for name in _METRIC.findall(expr)})


def test_every_pod_of_the_release_is_scraped(watched: Watched) -> None:
    targets = watched.ask("targets")["activeTargets"]
    assert {one["labels"]["instance"] for one in targets} == set(watched.targets)
    assert len(targets) == 5
    assert {one["health"] for one in targets} == {"up"}, targets


def test_every_metric_of_every_panel_and_alert_is_there_and_moves(
    watched: Watched, record_property: pytest.RecordProperty
) -> None:
    asked = set(names(watched))
    record_property("n", len(asked))
    assert {name for name in asked if not watched.series(name)} == NOT_ON_CPUS
    still = {name for name in asked - NOT_ON_CPUS if not watched.moved(name)}
    assert still <= STILL


def test_every_panel_has_something_to_show(watched: Watched, tmp_path: Path) -> None:
    empty = {
        title
        for board in BOARDS
        for title in draw(board, watched.source, tmp_path / f"{board.uid}.png")
    }
    assert "GPU seconds by stage" in empty and empty <= EMPTY


def test_every_alert_is_understood_and_none_says_that_the_controller_is_down(
    watched: Watched,
) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
    assert states["SealControllerDown"] == states["SealRunStalled"] == "inactive"
