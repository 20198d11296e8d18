"""What the command says when it does not end well, and how it is typed to go on."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from seal.telemetry import harmless

INTERRUPTED = "Interrupted"
"""Reason of an end by Ctrl-C or SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a command ended without a result."""

    reason: str
    """CamelCase, as conditions have it."""
    message: str
    remedy: str = ""
    field: str = ""
    """Dotted field or option at fault; empty if it is none."""
    exit_code: int


def complain(message: str, remedy: str, *, label: str = "error") -> None:
    """On stderr: what is wrong, then what to do."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    told = harmless(message)
    with console.capture() as captured:  # rich would close stdout, too, if nobody reads stderr
        console.print(Text(f"{label}: ", style="bold red").append(told, style="not bold default"))
        if remedy:
            console.print(Text(" " * (len(label) + 2) + harmless(remedy)))
    sys.stderr.write(captured.get())
    sys.stderr.flush()


def print_failure(failure: Failure) -> None:
    """On stdout, for programs: one JSON object in the place of the result."""
    sys.stdout.write(json.dumps({"error": asdict(failure)}, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that cannot be parsed."""
    return any(argument in ("--output=json", "-ojson") for argument in arguments) or any(
        option in ("--output", "-o") and value == "json" for option, value in pairwise(arguments)
    )


def program() -> str:
    """How this program was called: `seal` where that is found, else its path."""
    called = Path(sys.argv[0])
    if called.name != "seal":
        return "seal"
    found = shutil.which("seal")
    if found is not None and Path(found).absolute() == called.absolute():
        return "seal"
    here = Path.cwd()
    whole = called.absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def command(*, add: Sequence[str] = (), drop: Sequence[str] = (), front: Sequence[str] = ()) -> str:
    """The command line of this process with options added at its end or front, or dropped."""
    given = [argument for argument in sys.argv[1:] if argument not in drop]
    more = [argument for argument in add if argument not in given]
    end = given.index("--") if "--" in given else len(given)  # after it nothing is an option
    return shlex.join([program(), *front, *given[:end], *more, *given[end:]])
