"""The committed dashboards are what their script makes, and ask for metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from charts.dashboards.board import Board, Panel
from charts.dashboards.boards import BOARDS
from charts.dashboards.draw import plain

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts/seal/files"
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
_METRIC = re.compile(r"(?<!:)\b(?:seal|grpc_server)_[a-z0-9_]+\b(?!:)")
"""Names with colons are those of recording rules."""
_TARGET_LABELS = {"instance", "namespace", "job", "pod"}
"""What a scrape adds to every series."""


def labels_of_metrics() -> dict[str, set[str]]:
    """Labels of each series, as docs/metrics.md lists them; a test keeps that page current."""
    row = re.compile(r"\| `(\w+)` \| (\w+) \| ([\w, ]*) \|")
    found: dict[str, set[str]] = {}
    for name, type, labels in row.findall((ROOT / "docs/metrics.md").read_text("utf-8")):
        own = {one.strip() for one in labels.split(",") if one.strip()} | _TARGET_LABELS
        if type == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            found[name] = own
    return found


METRICS = labels_of_metrics()


def exprs() -> list[str]:
    """Every question to Prometheus: of panels, of variables, of alerts."""
    rules = yaml.safe_load((FILES / "rules/seal.yaml").read_text("utf-8"))
    return [
        *(query.expr for _, panel in PANELS for query in panel.queries),
        *(variable.query for board in BOARDS for variable in board.variables),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_committed_dashboard_is_what_the_script_makes(board: Board) -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs grafana-foundation-sdk")
    from charts.dashboards.grafana import to_json

    committed = (FILES / f"dashboards/{board.uid}.json").read_text("utf-8")
    assert committed == to_json(board), "run `make dashboards` and commit what it changes"


def test_no_other_dashboard_is_committed() -> None:
    names = {path.stem for path in (FILES / "dashboards").iterdir()}
    assert names == {board.uid for board in BOARDS}


@pytest.mark.parametrize("expr", exprs())
def test_every_metric_and_label_that_is_asked_for_exists(expr: str) -> None:
    names = set(_METRIC.findall(expr))
    assert names and names <= METRICS.keys()
    known = set().union(*(METRICS[name] for name in names))
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expr):
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= METRICS[name]
    for grouped in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expr):
        assert {one.strip() for one in grouped.split(",")} <= known
    for sources in re.findall(r'"(?:column|row)", " ", ([^)]*)\)', expr):
        assert {one.strip(' "') for one in sources.split(",")} <= known | {"end"}


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda one: one.title)
def test_runs_of_one_name_in_two_namespaces_are_told_apart(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        for grouped in re.findall(r"\bby \(([^)]*)\)|\"row\", \" \", ([^)]*)\)", query.expr):
            names = re.findall(r"\w+", "".join(grouped))
            assert "namespace" in names or "run" not in names
        assert "{{namespace}}" in query.legend or "{{run}}" not in query.legend


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda one: one.title)
def test_a_run_is_one_line_whichever_controller_shows_it(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        if "{{run}}" in query.legend:
            assert re.search(r"\b(?:max|sum) by \(namespace, run\b", query.expr)


def test_installations_in_two_namespaces_are_told_apart() -> None:
    asked = [query for _, panel in PANELS for query in panel.queries]
    (leading,) = (query for query in asked if "seal_controller_leading" in query.expr)
    assert "by (namespace)" in leading.expr and "{{namespace}}" in leading.legend


def test_a_link_between_dashboards_hands_on_only_what_means_the_same_in_both() -> None:
    queries: dict[str, str] = {}
    for board in BOARDS:
        for variable in board.variables:
            assert queries.setdefault(variable.name, variable.query) == variable.query


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda one: one.title)
def test_what_may_be_a_log_probability_is_no_share(board: Board, panel: Panel) -> None:
    asked = " ".join(query.expr for query in panel.queries)
    if re.search(r"seal_run_(?:reward|gain|retained_score)", asked):
        assert panel.unit == "short"


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda one: one.title)
def test_a_legend_names_labels_that_its_series_have(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        grouped = re.search(r"by \(([^)]*)\)", query.expr)
        has = (
            {one.strip() for one in grouped[1].split(",")} - {"le"}
            if grouped
            else set().union(*(METRICS[name] for name in _METRIC.findall(query.expr)))
        )
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= has
        assert query.legend or len(panel.queries) == 1, "which of them is it?"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_of_an_alert_link_to_its_runbook(board: Board) -> None:
    made = json.loads((FILES / f"dashboards/{board.uid}.json").read_text("utf-8"))
    links = {
        panel["title"]: [link["url"] for link in panel["links"]]
        for panel in made["panels"]
        if panel.get("links")
    }
    wanted = {
        panel.title: [f"docs/runbooks.md#{panel.runbook.lower()}"]
        for panel in board.panels
        if panel.runbook
    }
    assert links == wanted != {}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_any_grafana_imports_it_as_it_is(board: Board) -> None:
    made = json.loads((FILES / f"dashboards/{board.uid}.json").read_text("utf-8"))
    assert made["uid"] == board.uid and made["schemaVersion"] >= 36
    assert "id" not in made and "__inputs" not in made, "of one Grafana's own"
    ids = [panel["id"] for panel in made["panels"]]
    assert 0 not in ids and len(ids) == len(set(ids))
    source, *others = made["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    asked = [panel for panel in made["panels"] if panel["type"] != "row"]
    targets = [target for panel in asked for target in panel["targets"]]
    assert {one["datasource"]["uid"] for one in (*others, *asked, *targets)} == {"${datasource}"}
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in asked)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_rows_are_full_and_all_panels_say_what_to_see(board: Board) -> None:
    for row in board.rows:
        filled = 0
        for panel in row.panels:
            filled += panel.columns
            assert filled <= 24
            filled %= 24
        assert filled == 0
    titles = [panel.title for panel in board.panels]
    assert len(titles) == len(set(titles)) and all(panel.description for panel in board.panels)


def test_prometheus_understands_every_expr(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH (Debian: apt-get install prometheus)")
    asked = [query.expr for _, panel in PANELS for query in panel.queries]
    asked = [plain(expr, range_seconds=60.0) for expr in asked]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
