"""The command `seal`.

main      the boundary: every error becomes a message, a remedy and an exit code
app       the commands and their options; imports nothing heavy, so that `--help` is quick
execute   one run from spec to report, on services in this process
progress  bars on a terminal, a line now and then elsewhere
tables    the result in the terminal
"""

from controller_svc.cli.main import main

__all__ = ["main"]
