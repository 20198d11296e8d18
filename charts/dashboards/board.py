"""What a dashboard is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stacked", "number", "map", "rounds", "stacked rounds"]
"""`lines` over time, `stacked` ones, the newest value as a `number`, a heat `map`: a row for each
series, coloured by its value over time; or what there is now by `rounds` (see `by_round`)."""
Unit = Literal["short", "percentunit", "s", "ops", "bytes", "suffix: tok/s", "none"]
"""Grafana's names; a `percentunit` is a share from 0 to 1, `ops` are operations a second. Rewards
and what is made of them are `short`, plain numbers: of some runs they are log-probabilities."""


@dataclass(frozen=True)
class Query:
    """What Prometheus is asked."""

    expr: str
    """PromQL; `$__rate_interval`, `$__range` and the dashboard's variables stand in it."""
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
    threshold: float | None = None
    """Value beyond which that alert fires: a line."""
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


def latest(metric: str, matchers: str) -> str:
    """The newest values in the time that the dashboard shows, also of a run that has ended."""
    return f"last_over_time({metric}{{{matchers}}}[$__range])"


def by_round(expr: str, *columns: str) -> str:
    """A question for a panel of rounds: each run's round is a `row`, the labels make a `column`."""
    names = ", ".join(f'"{one}"' for one in columns)
    column = f'label_join({expr}, "column", " ", {names})'
    return f'label_join({column}, "row", " ", "namespace", "run", "round")'


def intervals(metric: str, matchers: str) -> str:
    """By round: a mean, and the ends of its interval, of metrics that end so."""
    ends = (("low", "_low"), ("mean", ""), ("high", "_high"))
    found = " or ".join(
        f'label_replace({latest(metric + ending, matchers)}, "end", "{name}", "", "")'
        for name, ending in ends
    )
    return by_round(f"({found})", "end")
