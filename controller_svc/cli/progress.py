"""What a run shows while it works, on stderr: bars on a terminal, a line now and then elsewhere.

Both watch the run through the controller's `Observer`; what a stage comes to and how far it is they
take from `stages`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from controller_svc.cli.stages import StageTracker
from controller_svc.core import RunStatus
from controller_svc.worker.progress import TaskProgress
from seal.report.numbers.formats import NBSP, duration
from seal.telemetry import harmless

LINE_INTERVAL_SECONDS = 30.0
"""Shortest time between two lines about one stage where there are no bars."""


class Screen(Protocol):
    """What a run shows.

    An `Observer` and a context manager; `on_download` may be called from any thread.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def say(self, message: str) -> None:
        """A line that stays."""

    def on_status(self, status: RunStatus) -> None:
        """The status changed."""

    def on_progress(self, progress: TaskProgress) -> None:
        """A task got on."""

    def on_download(self, what: str, done: int, total: int) -> None:
        """The model is being got ready: bytes done and in all (0: unknown)."""


def open_screen(tracker: StageTracker | None, *, bars: bool, json_lines: bool = False) -> Screen:
    """Bars if they are wanted and stderr is a terminal, else lines; or lines of JSON."""
    if json_lines:
        return Lines(tracker, json_lines=True)
    return Bars(tracker) if shows_bars(bars) else Lines(tracker)


def shows_bars(wanted: bool) -> bool:
    """Whether bars are wanted and can be drawn."""
    return wanted and sys.stderr.isatty()


class Lines:
    """A line when a stage starts and ends, in between at most every half minute if it got on."""

    def __init__(
        self,
        tracker: StageTracker | None = None,
        *,
        json_lines: bool = False,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self._tracker, self._json_lines, self._clock = tracker, json_lines, clock
        self._stream = stream
        self._said = float("-inf")
        self._doing = self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def say(self, message: str) -> None:
        """A line."""
        line = harmless(message)
        if self._json_lines:
            line = json.dumps({"event": message, "level": "info"})
        stream = self._stream or sys.stderr
        stream.write(f"{line.rstrip()}\n")
        stream.flush()
        self._said = self._clock()

    def on_status(self, status: RunStatus) -> None:
        """Say what has ended and what begins."""
        if self._tracker is not None:
            for line in self._tracker.moved(status):
                self.say(line)

    def on_progress(self, progress: TaskProgress) -> None:
        """Say how far the stage is, if it got on and nothing was said for long."""
        if self._tracker is None:
            return
        self._tracker.got_on(progress)
        if self._clock() - self._said < LINE_INTERVAL_SECONDS:
            return
        amounts = [
            f"{amount.label} {amount.text}" for amount in self._tracker.amounts() if amount.total
        ]
        share = f"{self._tracker.stage_fraction:.0%}"
        reached = f"{self._tracker.title}: {', '.join([share, *amounts])}"
        if reached != self._told:
            self._told = reached
            left = time_left(self._tracker.stage_seconds(), before="; ", of="of this stage")
            of_run = time_left(self._tracker.run_seconds(), before="; ", of="of the run")
            self.say(f"{reached}{left}{of_run}")

    def on_download(self, what: str, done: int, total: int) -> None:
        """Say what is being done with the model, once."""
        if what != self._doing:
            self._doing = what
            size = megabytes(total)
            self.say(f"model: {what}" + (f", {size} MB" if size else ""))


class Bars:
    """A bar for the run and one for the stage, with the time left, and one per kind of work."""

    def __init__(self, tracker: StageTracker | None = None) -> None:
        self._tracker = tracker
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[amount]}", justify="right"),
            TextColumn("{task.fields[left]}", style="dim"),
            console=self._console,
            refresh_per_second=5,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._bars):
            self.remove(name)
        self._progress.stop()

    def say(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(Text(harmless(message)))

    def on_status(self, status: RunStatus) -> None:
        """Say what has ended; begin the bars of the next stage."""
        if self._tracker is None:
            return
        self.remove("model")
        lines = self._tracker.moved(status, say_start=False)
        for line in lines:
            self.say(line)
        if lines or status.phase.terminal:
            for name in list(self._bars):
                self.remove(name)
        self._draw_run()

    def on_progress(self, progress: TaskProgress) -> None:
        """Move the bars."""
        if self._tracker is None:
            return
        self._tracker.got_on(progress)
        self._draw_run()
        for amount in self._tracker.amounts():
            if amount.total:
                self.draw(
                    amount.label,
                    f"  {amount.label}",
                    amount.fraction,
                    amount.text,
                    "",
                )

    def on_download(self, what: str, done: int, total: int) -> None:
        """Move the bar of the model."""
        size = megabytes(total)
        amount = f"{megabytes(done) or 0}/{size} MB" if size else ""
        self.draw("model", f"model: {what}", done / total if total else None, amount, "")

    def _draw_run(self) -> None:
        tracker = self._tracker
        if tracker is None or not tracker.title:
            return
        run, stage = tracker.run_seconds(), tracker.stage_seconds()
        place = f"stage {tracker.stages_done + 1}/{tracker.stages_total}"
        self.draw("run", "run", tracker.run_fraction, place, time_left(run))
        share = tracker.stage_fraction
        self.draw("stage", tracker.title, share, f"{share:.0%}", time_left(stage))

    def draw(
        self, name: str, description: str, fraction: float | None, amount: str, left: str
    ) -> None:
        """Show a bar, or move it; a fraction of None is an unknown one."""
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(description, total=1.0, amount="", left="")
        self._progress.update(
            self._bars[name],
            description=description,
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            amount=amount,
            left=left,
        )

    def remove(self, name: str) -> None:
        """Take a bar away, if it is there."""
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


def megabytes(size_bytes: int) -> str:
    """As many digits as say something: 93, 4.2, 0.1; nothing for less."""
    size = size_bytes / 1e6
    return f"{size:.0f}" if size >= 10 else f"{size:.1f}" if size >= 0.05 else ""


def time_left(eta_seconds: float | None, *, before: str = "", of: str = "") -> str:
    """About 2 min left; nothing where it is unknown."""
    if eta_seconds is None:
        return ""
    seconds = _rounded(eta_seconds)
    shown = f"{seconds:.0f}{NBSP}s" if seconds < 60 else duration(seconds)
    about = f"{before}about {shown} left"
    return f"{about} {of}" if of else about


def _rounded(seconds: float) -> float:
    """No finer than an estimate is: whole seconds, from two minutes on tens, from ten minutes."""
    unit = 1 if seconds < 120 else 10 if seconds < 600 else 60
    return max(1.0, float(unit * round(seconds / unit)))
