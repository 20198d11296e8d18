"""The command `seal`.

main       the boundary: every error becomes a message, a remedy and an exit code
app        the commands and their options; imports nothing heavy, so that `--help` is quick
looking    the commands that look at runs, settings and models
preflight  what is refused before anything costly
execute    one run from manifest to report, on services in this process
plan       what a run would do and take; workload counts it, edit_work the edits
progress   bars on a terminal, a line now and then elsewhere; stages, estimate: how far, how long
runs       the runs below a root, their logs and adapters
settings   all there is to set
tables     the result in the terminal
"""

from controller_svc.cli.main import main

__all__ = ["main"]
