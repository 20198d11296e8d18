"""The command `seal`.

boundary   where it ends: every error becomes a message, a remedy and an exit code
app        the commands and their options; imports nothing heavy, so that `--help` is quick
looking    the commands that look at runs, settings and models
preflight  what is refused before anything costly
execute    one run from manifest to report, on services in this process
plan       what a run would do and take; workload counts it, edit_work the edits
progress   bars on a terminal, a line now and then elsewhere; stages, estimate: how far, how long
runs       the runs below a root, their logs and adapters
roots      where they lie, and that it is there
typed      what a server refuses, in the words of the command line
settings   all there is to set
tables     the result in the terminal
"""

import os
import signal
from collections.abc import Sequence
from importlib import import_module

STOPPED = 130
"""Exit code after Ctrl-C, SIGTERM or a question answered with no, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `seal` with these arguments (default: those of the process) and end the process.

    Until the command's own code is imported, which takes a second or two, a signal just ends the
    process: nothing has begun, and KeyboardInterrupt would come out of any line of any library.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(STOPPED))
    boundary = import_module("controller_svc.cli.boundary")
    for number, handler in before.items():
        signal.signal(number, handler)
    boundary.run(arguments)
