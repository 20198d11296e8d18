"""The commands and their options. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from seal.errors import InvalidInput

DEFAULT_ROOT = "seal-runs"
DEMO_LIMITS_MINUTES = {False: (15, 25), True: (4, 6)}
"""By --quick: minutes within which the demo is to end on 2 cores that are fast, and on slow
ones."""
FAST_TERAFLOPS, SLOW_TERAFLOPS = 1.0, 0.7
"""Measured GEMM peak of these."""
DEMO_HELP = (
    "Train a self-edit policy on a real small model, on this machine.\n\n"
    "Downloads a 135M model once (93 MB), lets it write self-edits on fictional passages, trains "
    "an adapter on each, learns "
    "from the best ones, and shows what that gained on passages it has not seen: a table here, "
    "and a report as a web page."
)
RUN_HELP = (
    "Run ReST^EM on your own passages and questions.\n\n"
    "Needs a manifest of kind RestEMRun, the same that a cluster takes (examples/ has some). "
    "Options here win over the file. Everything that is finished is kept at once: a run "
    "that was stopped or killed goes on with --resume."
)
REPORT_HELP = (
    "Make the report of a run again and show its result.\n\n"
    "Writes report.html (one file, opens anywhere) and report.json into the run's directory. With "
    "--output json it prints "
    "all of report.json."
)

_EXAMPLES = {"--set": "--set inner.repeats=3", "--engine": "--engine slots=8"}

app = typer.Typer(
    name="seal",
    help="Self-adapting language models: a model writes its own finetuning data, is trained on "
    "it, and learns to write better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong input, 42 failed for good, 43 try again later, 130 "
    "stopped by Ctrl-C.",
)
models = typer.Typer(name="models", help="Base models on this machine.", no_args_is_help=True)
app.add_typer(models)


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
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run where it stopped; nothing that is finished is done again.",
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
        help="Set a field of this machine's engine, for example --engine slots=8. Repeatable.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from controller_svc.cli.machine import package_version

        typer.echo(f"seal {package_version()}")
        raise typer.Exit


@app.callback()
def configure(
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level",
            envvar="SEAL_LOG_LEVEL",
            help="Least serious log messages to show on stderr.",
        ),
    ] = LogLevel.WARNING,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of all commands."""
    from controller_svc.cli.stderr import LateStderr
    from seal.telemetry import configure_logging

    configure_logging(log_level.value, stream=cast(TextIO, LateStderr()))


@app.command(help=DEMO_HELP)
def demo(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Fewer passages, one round: a few minutes instead of a quarter of an hour.",
        ),
    ] = False,
    directory: Annotated[
        str,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Where the run is kept; it gets a directory of its own in there.",
        ),
    ] = DEFAULT_ROOT,
    resume: ResumeOption = False,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Train a self-edit policy on a real small model, on this machine."""
    from controller_svc.cli.execute import DEMO_NAMES, TimeLimit, execute
    from seal.config import load_engine, load_run

    with demo_manifest(DEMO_NAMES[quick]) as path:
        manifest = load_run(path)
    fast, slow = DEMO_LIMITS_MINUTES[quick]
    limit = TimeLimit(
        fast_minutes=fast,
        slow_minutes=slow,
        fast_teraflops=FAST_TERAFLOPS,
        slow_teraflops=SLOW_TERAFLOPS,
    )
    execute(
        manifest,
        engine=load_engine(manifest.spec.profile, changes(engine or [], option="--engine")),
        root=directory,
        resume=resume,
        offline=offline,
        as_json=output is Output.JSON,
        again=_resume_command(),
        limit=limit,
    )


@app.command(help=RUN_HELP)
def run(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Manifest of the run (kind RestEMRun), `-` for standard input; what it leaves "
            "out comes from its profile.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Passages to learn from: JSON or JSONL rows {title, context, questions}.",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Passages to measure on; none of them may be in the dataset."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Base model: smollm2-135m, a directory, or hf://org/model@revision.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run, and of its directory in the root."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set any field of the manifest, for example --set inner.repeats=3. Repeatable.",
        ),
    ] = None,
    root: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where runs are kept: a directory, or a file://, s3:// or gs:// URI.",
        ),
    ] = DEFAULT_ROOT,
    resume: ResumeOption = False,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Run ReST^EM on your own passages and questions."""
    from controller_svc.cli.execute import execute
    from seal.config import load_engine, load_run

    named = {
        "spec.data.train": dataset,
        "spec.data.validation": validation,
        "spec.model": model,
        "metadata.name": name,
    }
    manifest = load_run(config, changes(change or []) | named)
    execute(
        manifest,
        engine=load_engine(manifest.spec.profile, changes(engine or [], option="--engine")),
        root=root,
        resume=resume,
        offline=offline,
        as_json=output is Output.JSON,
        again=_resume_command(),
    )


@app.command(help=REPORT_HELP)
def report(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="RUN_DIR",
            help="Directory or URI of a run, finished or not: it holds run.json.",
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the report of a run again and show its result."""
    from controller_svc.cli.reporting import locate_run, print_report, write_report

    store, name = locate_run(directory)
    print_report(write_report(store, name), as_json=output is Output.JSON, whole=True)


@models.command("pull")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Embedded model (see `seal models list`), or hf://org/model@revision.",
        ),
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Make an embedded model anew, for example when its cache is damaged."
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Download a base model, check it, and keep it for later."""
    from controller_svc.cli.models import pull_model

    pull_model(name, force=force, as_json=output is Output.JSON)


@models.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """Show the embedded models and whether they are on this machine."""
    from controller_svc.cli.models import list_models

    list_models(as_json=output is Output.JSON)


@contextmanager
def demo_manifest(name: str) -> Iterator[Path]:
    """The file of a demo's run."""
    from importlib import resources

    with resources.as_file(resources.files("seal") / "profiles" / f"{name}.yaml") as path:
        yield path


def changes(settings: list[str], *, option: str = "--set") -> dict[str, object]:
    """`FIELD=VALUE` settings, values read as YAML.

    Raises:
        InvalidInput: not of that form.
    """
    import yaml

    found: dict[str, object] = {}
    for setting in settings:
        field, separator, value = setting.partition("=")
        if not separator or not field.strip():
            raise InvalidInput(
                f"{option} {setting}: there is no FIELD=VALUE",
                field=option,
                remedy=f"write for example {_EXAMPLES[option]}",
            )
        try:
            found[field.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise InvalidInput(
                f"{option} {setting:.200}: the value is no valid YAML",
                field=field,
                remedy="put it into quotes",
            ) from error
    return found


def _resume_command() -> str:
    """The command line of this process with --resume: what goes on with its run."""
    arguments = sys.argv[1:]
    return shlex.join(["seal", *arguments, *([] if "--resume" in arguments else ["--resume"])])
