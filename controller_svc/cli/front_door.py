"""The commands that do the work: documents in, an adapter out. `app` gives them names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller_svc.cli.options import (
    DEFAULT_ROOT,
    METRICS_HOST,
    SERVER_VARIABLE,
    EngineOption,
    MetricsPortOption,
    NamespaceOption,
    OfflineOption,
    Output,
    OutputOption,
    RootOption,
    ServerOption,
    changes,
)
from seal.rpc.settings import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from controller_svc.cli.adapting import Showing
    from controller_svc.cli.serving import LocalServer
    from controller_svc.cli.target import Target
    from seal.records import AdapterReference

DEFAULT_MODEL = "smollm2-135m"
ADAPT_HELP = (
    "Teach the model what stands in documents, and see what that is worth.\n\n"
    "Takes files, directories and globs: text, Markdown, JSON Lines, SQuAD; PDF and HTML with the "
    "extra `documents`. The model writes self-edits on each passage, the best are learnt by one "
    "adapter, and held-out questions say what it is worth: yours (--questions), or the model's "
    "own, labelled self-made. Without --server everything runs in this process. The same command "
    "again goes on where it stopped. Options that are left out are the server's to choose: "
    "docs/adapt.md has their defaults."
)
SERVE_HELP = (
    "Serve everything on this machine: the model, its services, and AdaptationService.\n\n"
    "Loads the model once; any number of clients hand in documents: `seal adapt --server ADDRESS`, "
    "seal.client, or plain gRPC. What has not ended when it stops goes on with the next start."
)
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Base model, where this process serves: smollm2-135m, a directory, or "
        "org/model@revision of the hub.",
    ),
]


def adapt(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Files, directories or globs to learn."),
    ],
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Questions on them: JSON Lines {question, answer or answers, document}. A part "
            "is held back as the test. Without, the model writes its own.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the adaptation; without, one is chosen.")
    ] = "",
    policy: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Policy adapter of a run, by its path in the store (see `seal list -o json`): it "
            "writes the edits; without, the base model does.",
        ),
    ] = "",
    candidates: Annotated[
        int | None, typer.Option(help="Edits written for each passage; the best is learnt.")
    ] = None,
    passage_tokens: Annotated[
        int | None, typer.Option(help="Longest passage that documents are cut into, tokens.")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the questions that is held back as the test."),
    ] = None,
    replay_rows: Annotated[
        int | None,
        typer.Option(help="Rows of other passages learnt beside, against forgetting."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every sample and shuffle.")] = None,
    min_gain: Annotated[
        float | None,
        typer.Option(metavar="F1", help="Gate: least gain in F1 over the base model, -1 to 1."),
    ] = None,
    confident: Annotated[
        bool | None,
        typer.Option(
            "--confident/--not-confident",
            help="Gate: the whole interval of the gain must be above that, or its mean alone.",
        ),
    ] = None,
    max_regression: Annotated[
        float | None,
        typer.Option(metavar="F1", help="Gate: most F1 that the retained set may lose, 0 to 1."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --server: hand in, and do not wait.")
    ] = False,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    model: ModelOption = DEFAULT_MODEL,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Teach the model what stands in documents, and see what that is worth."""
    from controller_svc.cli.adapting import Work
    from controller_svc.cli.adapting import adapt as adapt_documents
    from controller_svc.cli.questions import read_questions
    from controller_svc.cli.typed import as_typed
    from seal.client import Gate, Options, read_documents
    from seal.errors import InvalidInput

    target = target_of(context, server, namespace, root, here=("model", "engine", "offline"))
    if detach and not server:
        raise InvalidInput(
            "without a server this process does the work, and has to stay",
            field="--detach",
            remedy="leave it out, or name a server with --server",
        )
    documents = read_documents(files)
    with as_typed(documents=documents, questions=questions):
        asked = (
            read_questions(questions, documents, passage_tokens=passage_tokens)
            if questions is not None
            else ()
        )
    work = Work(
        documents=documents,
        questions=asked,
        questions_file=questions,
        name=name,
        options=Options(
            seed=seed,
            policy=_policy(policy),
            candidates=candidates,
            passage_tokens=passage_tokens,
            replay_rows=replay_rows,
            held_out_share=held_out,
            gate=Gate(min_gain=min_gain, confident=confident, max_regression=max_regression),
        ),
    )
    adapt_documents(
        work,
        target=target,
        local=_local(model, engine, offline=offline),
        showing=showing_of(context, output),
        detach=detach,
    )


def serve(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="SEAL_ADDRESS",
            help="Where to listen; port 0 takes a free one. There is no authentication: leave it "
            "to this machine, or to a network that you trust.",
        ),
    ] = DEFAULT_ADDRESS,
    root: RootOption = DEFAULT_ROOT,
    model: ModelOption = DEFAULT_MODEL,
    offline: OfflineOption = False,
    engine: EngineOption = None,
    metrics_port: MetricsPortOption = 0,
) -> None:
    """Serve everything on this machine."""
    from dataclasses import replace

    from controller_svc.cli.serve import serve_until_stopped
    from seal.telemetry import serving_metrics

    local = replace(_local(model, engine, offline=offline), address=address)
    with serving_metrics(metrics_port, host=METRICS_HOST):
        serve_until_stopped(root, local, showing=showing_of(context, Output.TABLE))


def _policy(reference: str) -> AdapterReference | None:
    from controller_svc.cli.references import parse_reference
    from seal.errors import InvalidInput
    from seal.records import AdapterReference

    if not reference:
        return None
    what = "the path of a run's policy, as `seal list -o json` shows it"
    found = parse_reference(reference, option="--policy", help=what)
    if not isinstance(found, AdapterReference):
        raise InvalidInput(
            "a policy is an adapter of the store",
            field="--policy",
            remedy=f"give {what}",
        )
    return found


def target_of(
    context: typer.Context, server: str, namespace: str, root: str, *, here: Sequence[str] = ()
) -> Target:
    """Whom a command talks to.

    `here`: parameters of the command, beside the root, that mean nothing to a server. Raises
    InvalidInput if the command line gives one of them although a server is named.
    """
    from controller_svc.cli.target import Target

    if server:
        _check_given(context, server, ("root", *here))
    return Target(server=server, namespace=namespace, root=root)


def _check_given(context: typer.Context, server: str, here: Sequence[str]) -> None:
    """Refuse the parameters of this machine that a command line gives beside a server."""
    from seal.errors import InvalidInput

    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in here and _source(context, parameter.name) == "COMMANDLINE"
    ]
    if given:
        them = "it" if len(given) == 1 else "them"
        typed = _source(context, "server") == "COMMANDLINE"
        raise InvalidInput(
            f"{', '.join(given)}: for work on this machine, but a server is named: {server}",
            field=given[0],
            remedy=f"leave {them} out, or "
            + ("leave out --server" if typed else f"add --server '' against {SERVER_VARIABLE}"),
        )


def _source(context: typer.Context, parameter: str) -> str:
    """Where a parameter's value comes from: COMMANDLINE, ENVIRONMENT or DEFAULT, for example."""
    source = context.get_parameter_source(parameter)
    return source.name if source is not None else ""


def _local(model: str, engine: list[str] | None, *, offline: bool) -> LocalServer:
    from controller_svc.cli.serving import LocalServer
    from seal.config import load_engine_settings

    settings = load_engine_settings("embedded", changes(engine or [], option="--engine"))
    return LocalServer(model=model, engine=settings, offline=offline)


def showing_of(context: typer.Context, output: Output) -> Showing:
    """How a command shows what it does."""
    from controller_svc.cli.adapting import Showing

    return Showing(as_json=output is Output.JSON, json_lines=context.obj)
