"""A real Prometheus scrapes every pod during a run, and knows all that is asked of it."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from release import REPOSITORY, SERVICES, Release, forwarded

from charts.dashboards.boards import BOARDS
from charts.dashboards.monitor import RULES, SCRAPE_SECONDS, prometheus
from controller_svc.core import Phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

WATCHED = REPOSITORY / "charts/dashboards/run.yaml"
"""Of some passages, with retained questions: what a single one has no interval for is there."""
STAYS_EMPTY = {
    "seal_run_gpu_seconds": "the engines are on CPUs",
}
"""Metrics that a run on a healthy cluster of CPUs does not have, and why."""
_METRIC = re.compile(r"\b(?:seal|grpc_server)_[a-z0-9_]+\b")


def asked_for() -> set[str]:
    """Every metric that a panel or an alert asks for."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    exprs = [query.expr for board in BOARDS for panel in board.panels for query in panel.queries]
    exprs += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    recorded = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    return {name for expr in exprs for name in _METRIC.findall(expr)} - recorded


def ask(address: str, expr: str) -> Any:
    question = urllib.parse.urlencode({"query": expr})
    with urllib.request.urlopen(f"{address}/api/v1/query?{question}", timeout=30) as reply:
        return json.load(reply)["data"]["result"]


def test_every_metric_that_is_asked_for_is_there_and_moves(release: Release) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on the PATH (Debian: apt-get install prometheus)")
    with ExitStack() as stack:
        targets = [
            stack.enter_context(forwarded(release, f"pod/{pod}", "metrics"))
            for component in (*SERVICES, "controller", "api")
            for pod in release.pods(component)
        ]
        address = stack.enter_context(prometheus(targets))
        started = time.monotonic()
        run = release.wait_for(release.apply_run(file=WATCHED))
        assert run.status is not None
        assert run.status.phase is Phase.COMPLETE
        time.sleep(3 * SCRAPE_SECONDS)
        assert len(ask(address, "up == 1")) == len(targets)
        window = f"{round(time.monotonic() - started)}s"
        missing = {
            name for name in asked_for() if not ask(address, f"last_over_time({name}[{window}])")
        }
        assert missing <= STAYS_EMPTY.keys()
        counters = [name for name in asked_for() - missing if name.endswith(("_total", "_bucket"))]
        assert [
            name for name in counters if not ask(address, f"increase({name}[{window}]) > 0")
        ] == []
    release.kubectl("delete", "restemrun", run.name, "--timeout=120s")
