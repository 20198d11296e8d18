"""What all tests share: Ctrl-C does what it does in a terminal, wherever they are started."""

from __future__ import annotations

import signal

# A shell has what it starts in the background ignore Ctrl-C, and so do the children of that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
