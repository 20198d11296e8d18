"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from seal.errors import InvalidInput

DEFAULT_ROOT, ROOT_VARIABLE = "seal-runs", "SEAL_ROOT"
SERVER_VARIABLE = "SEAL_SERVER"
METRICS_HOST = "127.0.0.1"
"""A command's metrics are for this machine: they name runs, and ask nobody who they are."""
_EXAMPLES = {"--set": "--set inner.repeats=3", "--engine": "--engine slots=8"}


class LogLevel(StrEnum):
    """Least serious messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output,
    typer.Option(
        "--output", "-o", help="Print the result as tables, or as one JSON object on stdout."
    ),
]


def _given_root(root: str) -> str:
    """Refuse an empty one: it would be the working directory, of which nobody has spoken."""
    if not root.strip():
        raise InvalidInput(
            "--root is empty",
            field="--root",
            remedy="is a variable of the shell not set? `.` is this directory",
        )
    return root


RootOption = Annotated[
    str,
    typer.Option(
        "--root",
        "--dir",
        metavar="DIR",
        envvar=ROOT_VARIABLE,
        callback=_given_root,
        help="Where runs are kept, each in a directory of its own: a directory, or a file://, "
        "s3:// or gs:// URI.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Download nothing: the model has to be on this machine.")
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="FIELD=VALUE",
        help="Set a field of this machine's engine, for example --engine slots=8. Repeatable; "
        "it wins over variables (SEAL_SLOTS), and `seal config show` lists the fields.",
    ),
]
MetricsPortOption = Annotated[
    int,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        envvar="SEAL_METRICS_PORT",
        min=0,
        max=65535,
        help="Serve /metrics for Prometheus on this port of this machine (127.0.0.1), for as long "
        "as the command lasts; 0 serves none.",
    ),
]
ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        envvar=SERVER_VARIABLE,
        help="Address of a server (see `seal serve`), https://HOST[:PORT] if it is behind TLS; "
        "without one this process does what there is to do.",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="Namespace; `default` without.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run (see `seal list`).")]


def changes(settings: list[str], *, option: str = "--set") -> dict[str, object]:
    """`FIELD=VALUE` settings, values read as YAML; nothing after the sign is the empty string.

    Raises:
        InvalidInput: not of that form, or a null, which would set nothing.
    """
    import yaml

    found: dict[str, object] = {}
    for setting in settings:
        field, separator, value = setting.partition("=")
        if not separator or not field.strip():
            raise InvalidInput(
                f"{option} {setting:.200}: there is no FIELD=VALUE",
                field=option,
                remedy=f"write for example {_EXAMPLES[option]}",
            )
        try:
            read = yaml.safe_load(value) if value.strip() else ""
        except (yaml.YAMLError, ValueError) as error:
            raise InvalidInput(
                f"{option} {setting:.200}: the value is no valid YAML",
                field=field,
                remedy="put it into quotes",
            ) from error
        if read is None:
            raise InvalidInput(
                f"{option} {setting:.200}: a null sets nothing",
                field=field.strip(),
                remedy=f'write {field.strip()}="" for an empty string, or leave the option out',
            )
        found[field.strip()] = read
    return found
