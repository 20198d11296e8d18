"""What a dashboard is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stacked", "number", "map"]
"""`lines` over time, `stacked` ones, the newest value as a `number`, or a heat `map`: a row for
each series, coloured by its value over time."""
Unit = Literal["short", "percentunit", "s", "ops", "bytes", "suffix: tok/s", "none"]
"""Grafana's names; a `percentunit` is a share from 0 to 1, `ops` are operations a second."""

BOUNDS = (" low", " high")
"""How legends of an interval's ends end: after that of its middle. They are drawn dashed."""


@dataclass(frozen=True)
class Query:
    """What Prometheus is asked."""

    expr: str
    """PromQL; `$__rate_interval` and the dashboard's variables stand in it."""
    legend: str = ""
    """Labels in double braces; empty for a single series."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    description: str
    """What to see in it, for somebody who is paged."""
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Kind = "lines"
    columns: int = 8
    """Of the 24 of a dashboard's row."""
    runbook: str = ""
    """Alert that the panel belongs to, as its heading in docs/runbooks.md has it."""
    highest: float | None = None
    """Upper end of its axis; None follows the values."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label, any number of them."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    """Name of its file and its address in Grafana."""
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """All of its panels, in order."""
        return (panel for row in self.rows for panel in row.panels)


NAMESPACE_OF_RUNS = Variable(
    name="namespace",
    label="Namespace",
    query="label_values(seal_run_progress_ratio, namespace)",
)
RUN = Variable(
    name="run",
    label="Run",
    query='label_values(seal_run_progress_ratio{namespace=~"$namespace"}, run)',
)
OF_RUN = 'namespace=~"$namespace", run=~"$run"'
"""Label matchers of the chosen runs."""
