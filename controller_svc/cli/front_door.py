"""The commands of the front door: documents in, an adapter out. `app` gives them names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller_svc.cli.logs import LogFormat
from controller_svc.cli.options import (
    DEFAULT_ROOT,
    EngineOption,
    NamespaceOption,
    OfflineOption,
    Output,
    OutputOption,
    RootOption,
    ServerOption,
    changes,
)

if TYPE_CHECKING:
    from controller_svc.cli.adapting import Showing
    from controller_svc.cli.serving import LocalServer, Target
    from seal.records import AdapterReference

DEFAULT_MODEL = "smollm2-135m"
ADAPT_HELP = (
    "Teach the model what stands in documents, and see what that is worth.\n\n"
    "Takes files, directories and globs: text, Markdown, JSON Lines, SQuAD; PDF and HTML with the "
    "extra `documents`. The model writes self-edits on each passage, the best are learnt by one "
    "adapter, and held-out questions say what it is worth: yours (--questions), or the model's "
    "own, labelled self-made. Without --server everything runs in this process. The same command "
    "again goes on where it stopped."
)
SERVE_HELP = (
    "Serve everything on this machine: the model, its services, and AdaptationService.\n\n"
    "Loads the model once; any number of clients hand in documents: `seal adapt --server ADDRESS`, "
    "seal.client, or plain gRPC. What has not ended when it stops goes on with the next start."
)
EXPORT_HELP = (
    "Write an adapter into a new directory, in PEFT's format.\n\n"
    "With --merged it is a whole model: base and adapter in one, as transformers and vLLM load it."
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
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of an adaptation (see `seal list`).")
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
    from seal.client import Gate, Options, read_documents
    from seal.errors import InvalidInput

    if detach and not server:
        raise InvalidInput(
            "without a server this process does the work, and has to stay",
            field="--detach",
            remedy="leave it out, or name a server with --server",
        )
    documents = read_documents(files)
    work = Work(
        documents=documents,
        questions=read_questions(questions, documents) if questions is not None else (),
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
        target=_target(server, namespace, root),
        local=_local(model, engine, offline=offline),
        showing=_showing(context, output),
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
    ] = "localhost:50051",
    root: RootOption = DEFAULT_ROOT,
    model: ModelOption = DEFAULT_MODEL,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Serve everything on this machine."""
    from dataclasses import replace

    from controller_svc.cli.serve import serve_until_stopped

    serve_until_stopped(
        root,
        replace(_local(model, engine, offline=offline), address=address),
        showing=_showing(context, Output.TABLE),
    )


def get(
    name: NameArgument,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show an adaptation: where it is, what its adapter is worth, what it cost."""
    from controller_svc.cli.adaptation_tables import print_adaptation
    from controller_svc.cli.serving import look

    target = _target(server, namespace, root)
    adaptation = look(target, lambda view: view.client.get(name))
    print_adaptation(adaptation, json_output=output is Output.JSON, reach=target.reach)


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
        target=_target(server, namespace, root),
        showing=_showing(context, output),
    )


def cancel(
    name: NameArgument,
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop an adaptation; what it has finished stays readable."""
    from controller_svc.cli.adaptation_tables import print_adaptation
    from controller_svc.cli.serving import look

    target = _target(server, namespace, root)
    adaptation = look(target, lambda view: view.client.cancel(name))
    print_adaptation(adaptation, json_output=output is Output.JSON, reach=target.reach)


def delete(
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
) -> None:
    """Delete adaptations with their results and adapters; one at work is cancelled first."""
    from controller_svc.cli.deleting import confirm_and_delete

    confirm_and_delete(
        names, target=_target(server, namespace, root), keep_adapters=keep_adapters, yes=yes
    )


def export(
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

    export_adapter(
        Export(
            reference=reference,
            directory=directory,
            merged=merged,
            model=model,
            offline=offline,
            as_json=output is Output.JSON,
        ),
        target=_target(server, namespace, root),
    )


def _policy(reference: str) -> AdapterReference | None:
    from controller_svc.cli.references import parse_reference
    from seal.errors import InvalidInput
    from seal.records import AdapterReference

    if not reference:
        return None
    found = parse_reference(reference, option="--policy")
    if not isinstance(found, AdapterReference):
        raise InvalidInput(
            "a policy is an adapter of the store",
            field="--policy",
            remedy="give the path of a run's policy, as `seal list -o json` shows it",
        )
    return found


def _target(server: str, namespace: str, root: str) -> Target:
    from controller_svc.cli.serving import Target

    return Target(server=server, namespace=namespace, root=root)


def _local(model: str, engine: list[str] | None, *, offline: bool) -> LocalServer:
    from controller_svc.cli.serving import LocalServer
    from seal.config import load_engine

    settings = load_engine("embedded", changes(engine or [], option="--engine"))
    return LocalServer(model=model, engine=settings, offline=offline)


def _showing(context: typer.Context, output: Output) -> Showing:
    from controller_svc.cli.adapting import Showing

    return Showing(as_json=output is Output.JSON, json_lines=context.obj is LogFormat.JSON)
