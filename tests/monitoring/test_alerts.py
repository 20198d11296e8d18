"""Each alert fires where it should and only there, and somebody who is paged knows what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.dashboards.boards import BOARDS
from seal.metrics import WAIT_BUCKETS_SECONDS
from seal.rpc.interceptor import FAULTS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/seal/files/rules/seal.yaml"
VALUES: Any = yaml.safe_load((ROOT / "charts/seal/values.yaml").read_text("utf-8"))
SCHEMA: Any = json.loads((ROOT / "charts/seal/values.schema.json").read_text("utf-8"))
CASES = Path(__file__).parent / "rules_test.yaml"
ALERTS: list[Any] = [
    rule
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
NAMES = [alert["alert"] for alert in ALERTS]
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on the PATH (Debian: apt-get install prometheus)",
)


def promtool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, check=False
    )


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_alert_fires_where_it_should_and_only_there() -> None:
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_in_which_it_fires(name: str) -> None:
    cases: Any = yaml.safe_load(CASES.read_text("utf-8"))
    tests = [
        one
        for case in cases["tests"]
        for one in case["alert_rule_test"]
        if one["alertname"] == name
    ]
    assert any(one["exp_alerts"] for one in tests)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_every_alert_says_how_bad_it_is_and_leads_to_a_runbook(alert: Any) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    notes = alert["annotations"]
    assert notes["summary"] and notes["description"]
    assert notes["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
    board, _, chosen = notes["dashboard_url"].removeprefix("d/").partition("?")
    variables = {one.uid: {variable.name for variable in one.variables} for one in BOARDS}
    assert set(re.findall(r"var-(\w+)=", chosen)) <= variables[board]
    page = (ROOT / "docs/runbooks.md").read_text("utf-8")
    section = page.partition(f"\n## {alert['alert']}\n")[2].partition("\n## ")[0]
    for word in ("**It means**", "**Look at**", "**Do**"):
        assert word in section


def test_the_alert_on_errors_asks_for_the_codes_that_servers_show_from_their_start_on() -> None:
    (alert,) = (one for one in ALERTS if one["alert"] == "SealServiceErrors")
    assert f'grpc_code=~"{"|".join(FAULTS)}"' in alert["expr"]


def test_what_alerts_take_from_recording_rules_is_recorded() -> None:
    rules = RULES.read_text("utf-8")
    recorded = set(re.findall(r"- record: (\S+)", rules))
    assert set(re.findall(r"\brun:\w+:\w+", rules)) == recorded != set()


def test_the_page_of_alerts_lists_all_of_them_as_severe_as_they_are() -> None:
    page = (ROOT / "docs/monitoring.md").read_text("utf-8")
    listed = re.findall(r"^\| (Seal\w+) \| (\w+) \|", page, re.MULTILINE)
    assert listed == [(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]


def test_the_charts_values_say_of_every_alert_what_the_file_says() -> None:
    given = VALUES["monitoring"]["rules"]["alerts"]
    assert list(given) == NAMES
    for alert in ALERTS:
        own = given[alert["alert"]]
        assert own["enabled"] is True and own["for"] == alert["for"]
        if "threshold" in own:  # the chart replaces whatever looks like one
            (found,) = re.findall(r"> ([0-9.]+)", alert["expr"])
            assert float(found) == own["threshold"]


def test_no_threshold_lies_beyond_the_last_bucket_of_what_it_is_about() -> None:
    rules = SCHEMA["properties"]["monitoring"]["properties"]["rules"]["properties"]
    bounds = rules["alerts"]["properties"]["SealEngineSaturated"]["properties"]["threshold"]
    assert bounds["exclusiveMaximum"] == WAIT_BUCKETS_SECONDS[-1], "no quantile is higher"


def test_the_line_in_a_panel_is_where_its_alert_fires() -> None:
    beyond = {
        alert["alert"]: float(found[1])
        for alert in ALERTS
        if (found := re.search(r"> ([\d.]+)$", alert["expr"].strip()))
    }
    marked = [panel for board in BOARDS for panel in board.panels if panel.threshold is not None]
    assert len(marked) == 3
    assert all(panel.threshold == beyond[panel.runbook] for panel in marked)


def test_runbooks_and_panels_name_alerts_that_exist() -> None:
    page = (ROOT / "docs/runbooks.md").read_text("utf-8")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == NAMES
    panels = {panel.runbook for board in BOARDS for panel in board.panels if panel.runbook}
    assert panels <= set(NAMES)
