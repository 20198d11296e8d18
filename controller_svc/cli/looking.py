"""The commands that look at runs, settings and models, or tidy them up. `app` gives them names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller_svc.cli.front_door import target_of
from controller_svc.cli.options import (
    DEFAULT_ROOT,
    NamespaceOption,
    Output,
    OutputOption,
    RootOption,
    RunArgument,
    ServerOption,
)
from seal.settings import PROFILES

REPORT_HELP = (
    "Make the report of a run again and show its result.\n\n"
    "Writes report.html (one file, opens anywhere) and report.json into the run's directory. With "
    "--output json it prints "
    "all of report.json."
)


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Name of a run (see `seal list`), or its directory or URI; finished or not.",
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the report of a run again and show its result."""
    from controller_svc.cli.locating import locate_run
    from controller_svc.cli.reporting import print_report, write_report

    store, name = locate_run(run, root=root)
    print_report(write_report(store, name), as_json=output is Output.JSON, whole=True)


def list_all(
    context: typer.Context,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the runs and adaptations of a root, or the adaptations of a server."""
    from controller_svc.cli.listing import print_everything

    print_everything(target_of(context, server, namespace, root), as_json=output is Output.JSON)


def status(
    run: RunArgument,
    adapters: Annotated[
        bool,
        typer.Option("--adapters", help="Also show which adapter was trained on which passage."),
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show where a run is, and its adapters."""
    from controller_svc.cli.runs import show_status

    show_status(root, run, adapters=adapters, as_json=output is Output.JSON)


def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends or stops.")
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a run on this machine logged; with --output json as it was written."""
    from controller_svc.cli.runs import show_logs

    show_logs(root, run, follow=follow, as_json=output is Output.JSON)


def remove(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names of runs (see `seal list`).")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete runs with all their results; one that is being run is refused."""
    from controller_svc.cli.runs import confirm_and_remove

    confirm_and_remove(root, runs, yes=yes, as_json=output is Output.JSON)


def show_config(
    profile: Annotated[
        str,
        typer.Argument(metavar="[PROFILE]", help=f"One of {', '.join(PROFILES)}."),
    ] = PROFILES[0],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every setting with its value, its meaning and its bounds, as a manifest that runs."""
    from controller_svc.cli.settings import show_settings

    show_settings(profile, as_json=output is Output.JSON)


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Embedded model (see `seal models list`), org/model@revision of the hub, or with "
            "--to a directory.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="Keep it in this directory of models, for example a volume of pods, which "
            "services take as --model-cache DIR. What is here already is copied. A model is there "
            "whole or not at all.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Make an embedded model anew, for example when its cache is damaged; with --to "
            "replace what is there.",
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Download a base model, check it, and keep it for later."""
    from controller_svc.cli.models import pull_model

    pull_model(name, to=to, force=force, as_json=output is Output.JSON)


def list_(output: OutputOption = Output.TABLE) -> None:
    """Show the embedded models and whether they are on this machine."""
    from controller_svc.cli.models import list_models

    list_models(as_json=output is Output.JSON)
