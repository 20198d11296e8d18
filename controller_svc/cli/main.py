"""Entry point: runs the app and ends what escapes it with a message, a remedy and an exit code.

The exit code is that of the errors table: 0 ok, 2 configuration, 42 permanent, 43 try again later,
130 stopped by Ctrl-C; 1 is an error that nobody foresaw.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from seal.errors import SealError, error_class

UNFORESEEN = 1
"""Exit code of an error that is not a `SealError`: a defect."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `seal` with these arguments (default: those of the process) and end the process."""
    from controller_svc.cli.app import app

    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(args=arguments, prog_name="seal")
    except SealError as error:
        logging.getLogger(__name__).debug("failed", exc_info=error)
        complain(error.message, error.remedy)
        sys.exit(error_class(error).exit_code)
    except Exception as error:  # the outermost boundary
        logging.getLogger(__name__).debug("crashed", exc_info=error)
        complain(
            f"{type(error).__name__}: {error}",
            "this is a defect; run it again with --log-level debug for the traceback, and report "
            "it",
        )
        sys.exit(UNFORESEEN)


def complain(message: str, remedy: str, *, label: str = "error") -> None:
    """On stderr: what is wrong, then what to do."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(f"{label}: ", style="bold red").append(message, style="not bold default"))
    if remedy:
        console.print(Text(" " * (len(label) + 2) + remedy))


def _terminate(number: int, frame: FrameType | None) -> None:
    """A polite kill stops the way Ctrl-C does: what is finished is kept."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # a background job of a script
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
