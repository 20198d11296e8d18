"""What Ctrl-C does: it is heard at once, and a second one ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from controller_svc.cli.messages import STOPPED


def say_stopping(say: Callable[[str], None]) -> None:
    """Say that Ctrl-C was heard.

    A second one ends the process, which loses nothing that is finished.
    """
    if signal.getsignal(signal.SIGINT) is not _stop_at_once:
        signal.signal(signal.SIGINT, _stop_at_once)
        say("stopping after the engine's current step ... (Ctrl-C again: at once)")


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(STOPPED)
