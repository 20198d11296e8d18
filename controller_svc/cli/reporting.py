"""Making a run's report and showing it.

Files into the run's directory, tables or JSON on stdout.
"""

from __future__ import annotations

from dataclasses import dataclass

import typer

from controller_svc.cli.roots import shown
from seal.artifacts import ArtifactStore
from seal.report import Report, build_report, render_html

DETAILS = {"validation_details", "rollout_details"}
"""Parts of a report with the texts of single passages: in report.json, not on the terminal."""


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report and its files."""

    report: Report
    html: str
    """Path of the page, or URI in an object store."""
    json: str
    """Of report.json."""


def write_report(store: ArtifactStore, run: str) -> WrittenReport:
    """Build the report of a run and write it into its directory."""
    report = build_report(store, run)
    store.write_json(f"{run}/report.json", report)
    store.write_bytes(f"{run}/report.html", render_html(report).encode())
    return WrittenReport(
        report=report,
        html=shown(store.uri(f"{run}/report.html")),
        json=shown(store.uri(f"{run}/report.json")),
    )


def print_report(written: WrittenReport, *, as_json: bool, whole: bool = False) -> None:
    """The result on stdout: tables, or one JSON object; `whole` with the texts of every passage."""
    if not as_json:
        from controller_svc.cli.tables import print_tables

        print_tables(written.report, html=written.html, json=written.json)
        return
    if whole:
        typer.echo(written.report.model_dump_json(indent=2))
        return
    import json

    result = written.report.model_dump(mode="json", exclude=DETAILS)
    typer.echo(
        json.dumps(
            result | {"report_html": written.html, "report_json": written.json},
            indent=2,
            ensure_ascii=False,
        )
    )
