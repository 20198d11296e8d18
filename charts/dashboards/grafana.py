"""Dashboards as Grafana's JSON, by its own library."""

from __future__ import annotations

import itertools
import json

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    prometheus,
    stat,
    statushistory,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as prometheus_model

from charts.dashboards.board import Board, Panel, Query, Variable

PANEL_HEIGHT = 8
"""Rows of Grafana's grid."""
RUNBOOKS = "docs/runbooks.md"
"""The chart puts a URL in its place (`monitoring.runbooks`)."""
ROUNDS = ("rounds", "stacked rounds")
_ROWS_AND_COLUMNS = model.DataTransformerConfig(
    id_val="groupingToMatrix",
    options={"rowField": "row", "columnField": "column", "valueField": "Value"},
)
_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_Picture = barchart.Panel | timeseries.Panel | stat.Panel | statushistory.Panel


def to_json(board: Board) -> str:
    """The dashboard as a file that Grafana takes."""
    return json.dumps(_dashboard(board).build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["seal"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .link(_siblings())
    )
    for variable in board.variables:
        made = made.with_variable(_variable(variable))
    ids = itertools.count(1)  # links to a panel hold, and an import has none twice
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(next(ids)))
    return made


def _siblings() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("SEAL dashboards")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags(["seal"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .query(variable.query)
        .datasource(_SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> _Picture:
    made = _picture(panel).title(panel.title).description(panel.description)
    if panel.runbook:
        made = made.links([_runbook(panel.runbook)])
    made = made.unit(panel.unit).datasource(_SOURCE).span(panel.columns).height(PANEL_HEIGHT)
    for number, query in enumerate(panel.queries):
        made = made.with_target(_target(panel, query, chr(ord("A") + number)))
    if panel.highest is not None:
        made = made.min(0).max(panel.highest)
    if panel.threshold is not None and isinstance(made, barchart.Panel | timeseries.Panel):
        made = _marked(made, panel.threshold)
    return made


def _marked(
    made: barchart.Panel | timeseries.Panel, threshold: float
) -> barchart.Panel | timeseries.Panel:
    """With a line, beyond which it is red."""
    steps = [model.Threshold(color="green"), model.Threshold(value=threshold, color="red")]
    marks = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    line = common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
    return made.thresholds(marks).thresholds_style(line)


def _runbook(alert: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(f"Runbook: {alert}").type(model.DashboardLinkType.LINK)
    return link.url(f"{RUNBOOKS}#{alert.lower()}").target_blank(True)


def _picture(panel: Panel) -> _Picture:
    if panel.kind == "number":
        return stat.Panel().graph_mode(common_model.BigValueGraphMode.NONE)
    if panel.kind == "map":
        colours = dashboard.FieldColor().mode(model.FieldColorModeId.CONTINUOUS_RD_YL_GR)
        return statushistory.Panel().color_scheme(colours)
    if panel.kind in ROUNDS:
        stacked = panel.kind == "stacked rounds"
        bars = barchart.Panel().with_transformation(_ROWS_AND_COLUMNS)
        modes = common_model.StackingMode
        legend = common.VizLegendOptions().placement(common_model.LegendPlacement.BOTTOM)
        bars = bars.legend(legend.show_legend(True))
        return bars.stacking(modes.NORMAL if stacked else modes.NONE)
    lines = timeseries.Panel().line_width(1).show_points(common_model.VisibilityMode.AUTO)
    legend = common.VizLegendOptions().display_mode(common_model.LegendDisplayMode.TABLE)
    legend = legend.placement(common_model.LegendPlacement.BOTTOM).show_legend(True)
    lines = lines.legend(legend.calcs(["lastNotNull"]))
    if panel.kind == "stacked":
        stacking = common.StackingConfig().mode(common_model.StackingMode.NORMAL)
        lines = lines.fill_opacity(30).stacking(stacking)
    return lines


def _target(panel: Panel, query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).datasource(_SOURCE)
    if query.legend:
        target = target.legend_format(query.legend)
    if panel.kind in ROUNDS:
        target = target.format(prometheus_model.PromQueryFormat.TABLE)
    return target.instant() if panel.kind in ("number", *ROUNDS) else target.range()
