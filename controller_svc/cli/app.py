"""The commands and their options. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller_svc.cli import companions, front_door, looking
from controller_svc.cli.chatting import CHAT_HELP, chat
from controller_svc.cli.messages import command
from controller_svc.cli.options import (
    DEFAULT_ROOT,
    METRICS_HOST,
    EngineOption,
    LogLevel,
    MetricsPortOption,
    OfflineOption,
    Output,
    OutputOption,
    RootOption,
    changes,
)
from seal.telemetry import LogFormat, writes_json

if TYPE_CHECKING:
    from controller_svc.cli.execute import TimeLimit


class DemoDomain(StrEnum):
    """What a demo learns, as a command line offers it."""

    KNOWLEDGE = "knowledge"
    ARC = "arc"


DEMO_NAMES = {
    (DemoDomain.KNOWLEDGE, False): "demo",
    (DemoDomain.KNOWLEDGE, True): "demo-quick",
    (DemoDomain.ARC, False): "demo-arc",
    (DemoDomain.ARC, True): "demo-arc-quick",
}
"""By domain and --quick: names of the demo's runs, and of their manifests among the profiles."""
DEMO_LIMITS_MINUTES = {False: (15, 25), True: (4, 6)}
"""By --quick: minutes within which the demo on passages is to end on 2 cores that are fast, and on
slow ones. What another demo takes is estimated when it begins."""
FAST_TERAFLOPS, SLOW_TERAFLOPS = 1.0, 0.4
"""Measured GEMM peak of these."""
DEMO_HELP = (
    "Train a self-edit policy on a real small model, on this machine.\n\n"
    "Downloads a 135M model once (93 MB), lets it write self-edits on fictional passages, trains "
    "an adapter on each, learns "
    "from the best ones, and shows what that gained on passages it has not seen: a table here, "
    "and a report as a web page.\n\n"
    "With --domain arc it learns to solve puzzles instead: it chooses for each how an adapter is "
    "trained on it, learns from the choices that helped, and shows how many puzzles of other rules "
    "are solved then."
)
RUN_HELP = (
    "Run ReST^EM on your own passages and questions.\n\n"
    "Needs a manifest of kind RestEMRun, the same that a cluster takes (examples/ has some). "
    "Options here win over the file. Everything that is finished is kept at once: a run "
    "that was stopped or killed goes on with --resume."
)

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
config = typer.Typer(name="config", help="Settings of runs.", no_args_is_help=True)
app.add_typer(config)


def _version(wanted: bool) -> None:
    if wanted:
        from controller_svc.cli.machine import package_version

        typer.echo(f"seal {package_version()}")
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level",
            envvar="SEAL_LOG_LEVEL",
            help="Least serious log messages to show on stderr.",
        ),
    ] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            "--log-format",
            envvar="SEAL_LOG_FORMAT",
            help="Write logs and progress on stderr for people (console) or as JSON lines; "
            "auto: for people on a terminal, else as JSON lines.",
        ),
    ] = "console",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of all commands."""
    from controller_svc.cli.logs import configure as configure_logs
    from seal.rpc.tracing import configure_tracing

    context.obj = writes_json(log_format)
    configure_logs(log_level.value, as_json=context.obj)
    configure_tracing("seal")


@app.command(help=DEMO_HELP)
def demo(
    context: typer.Context,
    domain: Annotated[
        DemoDomain,
        typer.Option(
            "--domain",
            help="What is learnt: passages, or few-shot puzzles by a model that chooses how it is "
            "trained on each.",
        ),
    ] = DemoDomain.KNOWLEDGE,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Fewer passages or puzzles, one round: a third of the demo's time, or less.",
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the demo's run, if there is one, and begin.")
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Train a self-edit policy on a real small model, on this machine."""
    from controller_svc.cli.execute import Options, execute
    from controller_svc.cli.runs import remove_run
    from seal.artifacts import ArtifactStore
    from seal.config import load_engine_settings, load_run
    from seal.runs.store import manifest_path

    with demo_manifest(DEMO_NAMES[domain, quick]) as path:
        manifest = load_run(path)
    store = ArtifactStore(root)
    store.check_place()
    exists = store.exists(manifest_path(manifest.name))
    if exists and fresh:
        remove_run(store, manifest.name)
    execute(
        manifest,
        engine=load_engine_settings(
            manifest.spec.profile, changes(engine or [], option="--engine")
        ),
        options=Options(
            root=root,
            resume=exists and not fresh,
            offline=offline,
            as_json=output is Output.JSON,
            json_lines=context.obj,
            again=command(drop=["--fresh"]),
            anew=f"begin anew with:  {command(add=['--fresh'])}",
            limit=_limit(quick) if domain is DemoDomain.KNOWLEDGE else None,
        ),
    )


def _limit(quick: bool) -> TimeLimit:
    from controller_svc.cli.execute import TimeLimit

    fast, slow = DEMO_LIMITS_MINUTES[quick]
    return TimeLimit(
        fast_minutes=fast,
        slow_minutes=slow,
        fast_teraflops=FAST_TERAFLOPS,
        slow_teraflops=SLOW_TERAFLOPS,
    )


@app.command(help=RUN_HELP)
def run(
    context: typer.Context,
    file: Annotated[
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
            help="Passages to learn from: JSON or JSONL rows {title, context, questions}, in a "
            "file or at an s3:// or gs:// URI.",
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
            help="Base model: smollm2-135m, a directory, or org/model@revision of the hub.",
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
            help="Set any field of the manifest, for example --set spec.inner.repeats=3; `spec.` "
            "may be left out. Repeatable; `seal config show` lists the fields.",
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only show what would be done: stages, inner loops, steps, tokens, and about how "
            "much time and memory they take.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run where it stopped; nothing that is finished is done again.",
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
    metrics_port: MetricsPortOption = 0,
) -> None:
    """Run ReST^EM on your own passages and questions."""
    from controller_svc.cli.execute import Options, execute
    from seal.config import load_engine_settings, load_run
    from seal.telemetry import serving_metrics

    named = {
        "--dataset": ("spec.data.train", dataset),
        "--validation": ("spec.data.validation", validation),
        "--model": ("spec.model", model),
        "--name": ("metadata.name", name),
    }
    manifest = load_run(file, changes(change or []), named)
    settings = load_engine_settings(manifest.spec.profile, changes(engine or [], option="--engine"))
    if plan:
        from controller_svc.cli.plan import show_plan

        show_plan(
            manifest, engine=settings, root=root, resume=resume, as_json=output is Output.JSON
        )
        return
    options = Options(
        root=root,
        resume=resume,
        offline=offline,
        as_json=output is Output.JSON,
        json_lines=context.obj,
        again=command(add=["--resume"]),
        anew="begin another one with --name or --root",
        may_grow=True,
    )
    with serving_metrics(metrics_port, host=METRICS_HOST):
        execute(manifest, engine=settings, options=options)


@contextmanager
def demo_manifest(name: str) -> Iterator[Path]:
    """The file of a demo's run."""
    from importlib import resources

    with resources.as_file(resources.files("seal") / "profiles" / f"{name}.yaml") as path:
        yield path


app.command("adapt", help=front_door.ADAPT_HELP)(front_door.adapt)
app.command("serve", help=front_door.SERVE_HELP)(front_door.serve)
app.command("get")(companions.get)
app.command("watch")(companions.watch)
app.command("cancel")(companions.cancel)
app.command("delete")(companions.delete)
app.command("chat", help=CHAT_HELP)(chat)
app.command("export", help=companions.EXPORT_HELP)(companions.export)
app.command("report", help=looking.REPORT_HELP)(looking.report)
app.command("list")(looking.list_all)
app.command("status")(looking.status)
app.command("logs")(looking.logs)
app.command("rm")(looking.remove)
config.command("show")(looking.show_config)
models.command("pull")(looking.pull)
models.command("list")(looking.list_)
