"""`seal list`: the runs and adaptations of a root, or the adaptations of a server."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from controller_svc.cli.adaptation_tables import as_json as adaptation_json
from controller_svc.cli.adaptation_tables import print_list
from controller_svc.cli.roots import existing_store, shown
from controller_svc.cli.runs import listed, print_runs
from controller_svc.cli.serving import has_adaptations, look
from controller_svc.cli.target import Target
from seal.client import Adaptation

RUN, ADAPTATION = "RestEMRun", "Adaptation"
"""What an entry of the JSON list is: its `kind`."""


def print_everything(target: Target, *, as_json: bool) -> None:
    """Print what there is; as JSON one list, each entry with its `kind`."""
    store = None if target.server else existing_store(target.root)
    runs = listed(store) if store is not None else []
    adaptations = _adaptations(target) if store is None or has_adaptations(store) else []
    if as_json:
        entries = [
            *({"kind": RUN} | asdict(line) for line in runs),
            *({"kind": ADAPTATION} | adaptation_json(one) for one in adaptations),
        ]
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    if runs:
        print_runs(runs)
    if runs and adaptations:
        typer.echo()
    if adaptations:
        print_list(adaptations)
    if not runs and not adaptations:
        typer.echo(
            f"There are no adaptations at {target.server}."
            if store is None
            else f"There are no runs in {shown(store.root_uri)}."
        )


def _adaptations(target: Target) -> list[Adaptation]:
    return look(target, lambda view: list(view.client.list()))
