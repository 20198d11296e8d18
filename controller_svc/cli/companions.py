"""The commands for adaptations that are there: look, follow, stop, delete, export.

`app` gives them names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller_svc.cli.front_door import showing_of, target_of
from controller_svc.cli.options import (
    DEFAULT_ROOT,
    NamespaceOption,
    OfflineOption,
    Output,
    OutputOption,
    RootOption,
    ServerOption,
)

EXPORT_HELP = (
    "Write an adapter into a new directory, in PEFT's format.\n\n"
    "With --merged it is a whole model: base and adapter in one, as transformers and vLLM load it."
)
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of an adaptation (see `seal list`).")
]


def get(
    context: typer.Context,
    name: NameArgument,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show an adaptation: where it is, what its adapter is worth, what it cost."""
    from controller_svc.cli.adaptation_tables import print_adaptation
    from controller_svc.cli.serving import look

    target = target_of(context, server, namespace, root)
    adaptation, at_work = look(target, lambda view: (view.client.get(name), view.at_work))
    print_adaptation(
        adaptation,
        json_output=output is Output.JSON,
        reach=target.reach,
        resume="" if at_work else target.resume(adaptation),
    )


def watch(
    context: typer.Context,
    name: NameArgument,
    after: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tell only what happened after event N.")
    ] = 0,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Follow an adaptation to its end, and show what came out."""
    from controller_svc.cli.adapting import watch as watch_adaptation

    watch_adaptation(
        name,
        after=after,
        target=target_of(context, server, namespace, root),
        showing=showing_of(context, output),
    )


def cancel(
    context: typer.Context,
    name: NameArgument,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop an adaptation; what it has finished stays readable."""
    from controller_svc.cli.adaptation_tables import print_adaptation
    from controller_svc.cli.serving import look

    target = target_of(context, server, namespace, root)
    adaptation = look(target, lambda view: view.client.cancel(name))
    print_adaptation(adaptation, json_output=output is Output.JSON, reach=target.reach)


def delete(
    context: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names of adaptations (see `seal list`).")
    ],
    keep_adapters: Annotated[
        bool, typer.Option("--keep-adapters", help="Leave the adapters in the store.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete adaptations with their results and adapters; one at work is cancelled first."""
    from controller_svc.cli.deleting import confirm_and_delete

    confirm_and_delete(
        names,
        target=target_of(context, server, namespace, root),
        keep_adapters=keep_adapters,
        yes=yes,
        as_json=output is Output.JSON,
    )


def export(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help="Name of an adaptation (see `seal list`), or an adapter's path in the store.",
        ),
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="New directory for the files.")
    ],
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Write a whole model: the adapter merged into its base."),
    ] = False,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="Base model of --merged; without, the adapter's own."
        ),
    ] = "",
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
) -> None:
    """Write an adapter into a new directory."""
    from controller_svc.cli.exporting import Export, export_adapter
    from seal.errors import InvalidInput

    if model and not merged:
        raise InvalidInput(
            "--model is the base model that --merged takes",
            field="--model",
            remedy="leave it out, or add --merged",
        )
    export_adapter(
        Export(
            reference=reference,
            directory=directory,
            merged=merged,
            model=model,
            offline=offline,
            as_json=output is Output.JSON,
        ),
        target=target_of(context, server, namespace, root),
    )
