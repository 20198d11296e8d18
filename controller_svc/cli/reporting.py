"""Making a run's report and showing it.

Files into the run's directory, tables or JSON on stdout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer

from seal.artifacts import ArtifactStore
from seal.errors import NotFound
from seal.report import Report, build_report, render_html

DETAILS = {"validation_details", "rollout_details"}
"""Parts of a report with the texts of single passages: in report.json, not on the terminal."""


NAME_A_RUN = "give the directory that `seal run` or `seal demo` named at its end"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report and its files."""

    report: Report
    html: str
    """Path of the page, or URI in an object store."""
    json: str
    """Of report.json."""


def locate_run(directory: str) -> tuple[ArtifactStore, str]:
    """The store and the name of the run in a directory or URI.

    Raises:
        NotFound: it holds no run; the message lists runs that lie below it.
    """
    plain = directory.rstrip("/")
    uri = plain if "://" in plain else Path(plain or "/").expanduser().absolute().as_uri()
    root, _, name = uri.rpartition("/")
    name = unquote(name) if uri.startswith("file://") else name
    if root in ("", "file://"):
        raise NotFound(f"{directory} holds no run", remedy=NAME_A_RUN)
    store = ArtifactStore(root)
    if not store.exists(f"{name}/run.json"):
        runs = [path.split("/")[-2] for path in _specs_below(store, name)]
        near = f"did you mean {directory.rstrip('/')}/{runs[0]}?" if runs else NAME_A_RUN
        raise NotFound(f"{directory} holds no run: there is no run.json in it", remedy=near)
    return store, name


def _specs_below(store: ArtifactStore, name: str) -> list[str]:
    return [
        path
        for path in store.list(name)
        if path.count("/") == name.count("/") + 2 and path.endswith("/run.json")
    ]


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


def shown(uri: str) -> str:
    """A path for a `file://` URI, else the URI."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri


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
