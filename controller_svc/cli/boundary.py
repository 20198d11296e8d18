"""The boundary: runs the app and turns what escapes it into one message, a remedy, an exit code.

The exit code is that of the errors table: 0 ok, 2 what was given is wrong, 42 permanent, 43 try
again later, 130 stopped by Ctrl-C or SIGTERM; 1 is an error that nobody foresaw. With `--output
json` an end without a result is a JSON object too.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from controller_svc.cli import STOPPED
from controller_svc.cli.app import app
from controller_svc.cli.messages import (
    INTERRUPTED,
    Failure,
    command,
    complain,
    print_failure,
    program,
    wants_json,
)
from controller_svc.cli.stopping import end_at_signals, say_the_end
from seal.errors import InvalidInput, SealError, error_class
from seal.files import file_errors

ENGINE_THREAD = "seal-engine"
"""Name of an engine's thread (`seal.engine.engine`, which is too heavy to import here)."""
UNFORESEEN = 1
"""Exit code of an error that is not a `SealError`: a defect."""
ESCAPED = "seal-escaped"
"""How an output writes characters that it lacks."""
_SURROGATE = re.compile("[\ud800-\udfff]")
READER_GONE = 1
"""Exit code where nobody reads the output any more (`| head`), which typer's own code has too."""
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What the parser of the command line raises; typer names only its subclass."""


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `seal` with these arguments (default: those of the process) and end the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    for variable in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(variable, "1")  # bars of libraries would run through ours
    signal.signal(signal.SIGTERM, _terminate)
    _end(_exit_code(given))


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters that an output lacks, as JSON writes them: it stays JSON where it was."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _open_streams() -> None:
    """A stream that was closed is no error, nor is an output that lacks some characters."""
    codecs.register_error(ESCAPED, _escaped)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    elif isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)


@contextmanager
def _output_errors() -> Iterator[None]:
    """An output that takes no more, because its disk is full, is no defect of the command."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with file_errors("the output"):
            raise


def _drop_output() -> None:
    """What standard output refuses goes nowhere: Python would try again at the end, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _end(code: int) -> NoReturn:
    """End the process with this exit code, also while a step of the engine hangs.

    Python's own end would tear down torch's threads under it, and abort with another code. There
    is nothing left that a signal could stop: it only hastens the end.
    """
    end_at_signals(code)
    if any(thread.name == ENGINE_THREAD for thread in threading.enumerate()):
        from seal.serving import leave

        leave(code)
    sys.exit(code)


def _exit_code(given: list[str]) -> int:
    try:
        with _output_errors():
            return _run(given)
    except UsageError as error:
        return _misused(error, as_json=wants_json(given))
    except typer.Abort:  # a question was answered with no, or by Ctrl-C
        return _stopped("nothing was done", as_json=wants_json(given))
    except KeyboardInterrupt:  # that no command has words of its own for
        say_the_end()
        return _stopped("it did not come to its end", as_json=wants_json(given))
    except BrokenPipeError:
        return READER_GONE
    except SealError as error:
        row = error_class(error)
        failure = Failure(
            reason=row.reason,
            message=error.message,
            remedy=error.remedy,
            field=error.field,
            exit_code=row.exit_code,
        )
        return _tell(failure, error, as_json=wants_json(given))
    except Exception as error:  # noqa: BLE001 - the outermost boundary
        return _tell(_unforeseen(error, given), error, as_json=wants_json(given))


def _unforeseen(error: Exception, given: Sequence[str]) -> Failure:
    """A defect, unless an argument is no text: nobody could look at each before it is used."""
    if isinstance(error, UnicodeEncodeError) and (wrong := _no_text(given)):
        return Failure(
            reason="InvalidInput",
            message=f"{wrong!a} is no UTF-8, and only the name of a file need not be",
            remedy="write it in UTF-8",
            exit_code=error_class(InvalidInput).exit_code,
        )
    return Failure(
        reason="Defect",
        message=f"{type(error).__name__}: {error}",
        remedy="this is a defect; please report it with the traceback that this shows:  "
        + command(front=["--log-level", "debug"]),
        exit_code=UNFORESEEN,
    )


def _no_text(given: Sequence[str]) -> str:
    """An argument in which Python stands surrogates for bytes that are no UTF-8; empty for none."""
    return next((one for one in given if _SURROGATE.search(one)), "")


def _run(given: list[str]) -> int:
    """Run the command; what escapes it is the boundary's.

    Called as a function the app would make an exit code of Ctrl-C, and nobody would hear of it.
    """
    whole = typer.main.get_command(app)
    try:
        with whole.make_context("seal", list(given)) as context:
            whole.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _stopped(message: str, *, as_json: bool) -> int:
    """Tell people and programs of an end by their own wish."""
    failure = Failure(reason=INTERRUPTED, message=message, exit_code=STOPPED)
    return _told(lambda: complain(message, "", label="stopped"), failure, as_json=as_json)


def _tell(failure: Failure, error: Exception, *, as_json: bool) -> int:
    """Message and remedy for people, an object for programs, the traceback for debugging."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        sys.stderr.write("".join(traceback.format_exception(error)))
    return _told(lambda: complain(failure.message, failure.remedy), failure, as_json=as_json)


def _told(say: Callable[[], None], failure: Failure, *, as_json: bool) -> int:
    """The exit code, once people and programs are told.

    An output that is full or closed takes nothing away from it, nor from what the other one says.
    """
    with suppress(OSError):
        say()
    if as_json:
        with suppress(OSError):
            print_failure(failure)
    _drop_output()
    return failure.exit_code


def _misused(error: Exception, *, as_json: bool) -> int:
    """Tell a wrong command line the way every program does."""
    context = getattr(error, "ctx", None)
    failure = Failure(
        reason="InvalidInput",
        message=str(error.format_message()),  # type: ignore[attr-defined]
        remedy=f"see:  {context.command_path if context else program()} --help",
        field=_typed(error),
        exit_code=error_class(InvalidInput).exit_code,
    )
    # The parser's own way: usage, then what is wrong
    return _told(error.show, failure, as_json=as_json)  # type: ignore[attr-defined]


def _typed(error: Exception) -> str:
    """The option or argument that is wrong; empty if it is none."""
    if option := getattr(error, "option_name", ""):
        return str(option)
    if (parameter := getattr(error, "param", None)) is None:
        return ""
    named = str(parameter.opts[0])
    return named if named.startswith("-") else str(parameter.metavar or named)


def _terminate(number: int, frame: FrameType | None) -> None:
    """A polite kill stops the way Ctrl-C does: what is finished is kept."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # a background job of a script
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
