"""The command `seal chat` and its options. `app` gives it its name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from controller_svc.cli.front_door import target_of
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
from controller_svc.cli.references import REF_HELP
from seal.limits import MAX_TEMPERATURE, MAX_TEXT_TOKENS
from seal.settings import MAX_SEED

CHAT_HELP = (
    "Ask a base model and its adapted self the same, and read both answers.\n\n"
    "On a terminal it goes on until Ctrl-D; --message asks one thing and ends. Without a server "
    "the model is loaded in this process."
)


class Format(StrEnum):
    """How a message becomes a prompt."""

    FEW_SHOT = "few-shot"
    READING = "reading"
    PLAIN = "plain"
    CHAT = "chat"


def chat(
    context: typer.Context,
    adapter: Annotated[str, typer.Option("--adapter", metavar="REF", help=REF_HELP)],
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Ask this, and end.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="few-shot and plain ask each message by itself, as the evaluation does; chat is "
            "a conversation through the model's chat template. Default: as the adaptation was "
            "evaluated, where that is known, else few-shot.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            max=MAX_TEXT_TOKENS,
            metavar="N",
            help="Longest answer, in tokens: 64 where nobody says, 256 in a chat.",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            min=0.0,
            max=MAX_TEMPERATURE,
            metavar="T",
            help="Softmax temperature; 0 takes the likeliest token.",
        ),
    ] = 0.0,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=MAX_SEED, metavar="N", help="Seed of a temperature above 0."
        ),
    ] = 0,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Base model, if it is no longer where the adapter says: smollm2-135m, a "
            "directory, or org/model@revision of the hub. Without --server.",
        ),
    ] = "",
    server: ServerOption = "",
    namespace: NamespaceOption = "",
    root: RootOption = DEFAULT_ROOT,
    output: OutputOption = Output.TABLE,
    offline: OfflineOption = False,
    engine: EngineOption = None,
) -> None:
    """Ask a base model and its adapted self the same, and read both answers."""
    from controller_svc.cli.chat import Options, hold_chat
    from seal.config import load_engine_settings

    hold_chat(
        Options(
            adapter=adapter,
            message=message,
            target=target_of(context, server, namespace, root, here=("model", "engine", "offline")),
            model=model,
            engine=load_engine_settings("embedded", changes(engine or [], option="--engine")),
            offline=offline,
            format=None if format is None else format.value,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            as_json=output is Output.JSON,
        )
    )
