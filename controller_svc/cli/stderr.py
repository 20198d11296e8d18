"""Standard error as it is at the time.

What log handlers write to, so that bars and logs share one terminal.
"""

from __future__ import annotations

import io
import sys


class LateStderr(io.TextIOBase):
    """Writes to whatever `sys.stderr` is at the time, so that log lines go above the bars."""

    def write(self, text: str) -> int:
        """Write text."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush it."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """True on a terminal."""
        return sys.stderr.isatty()
