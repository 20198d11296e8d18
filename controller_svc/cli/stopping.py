"""What Ctrl-C does: it is heard at once, a second one ends the process, the last words are said."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from controller_svc.cli import STOPPED


def say_stopping(say: Callable[[str], None]) -> None:
    """Say that Ctrl-C was heard.

    A second one ends the process, which loses nothing that is finished.
    """
    if signal.getsignal(signal.SIGINT) is not _stop_at_once:
        signal.signal(signal.SIGINT, _stop_at_once)
        say("stopping after the engine's current step ... (Ctrl-C again: at once)")


def say_the_end() -> None:
    """Let no further Ctrl-C cut what is said at the end, which takes no time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_at_signals(code: int) -> None:
    """From here on a signal ends the process at once, with the code that it would end with."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(code))


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(STOPPED)
