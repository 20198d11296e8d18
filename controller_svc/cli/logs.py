"""Logs of the command: one plain line for people, JSON for machines, and a file with each run.

seal --log-format console        "warning: task failed: no space left (task demo-r1-rollout-a1)"
seal --log-format json           one JSON object a line, progress included
seal --log-format auto           console where stderr is a terminal, else json
{run}/controller.log             always JSON, from level info on: what `seal logs` shows
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO, cast

from controller_svc.cli.stderr import LateStderr
from seal.telemetry import configure_logging, escaped, json_formatter

LOG_FILE = "controller.log"
"""Name of the log in a run's directory."""
_NOT_FOR_PEOPLE = {
    "event", "level", "logger", "timestamp", "message", "reason", "exception", "exc_info",
    "run", "round", "stage", "shard", "x_request_id", "trace_id", "_record", "_from_structlog",
}  # fmt: skip
_RETRY = "stamina.retry_scheduled"


def configure(level: str, *, as_json: bool) -> None:
    """Log to stderr, wherever that goes at the time."""
    configure_logging(level, as_json, stream=cast(TextIO, LateStderr()), console=_render_for_people)


@contextmanager
def run_log(directory: Path | None) -> Iterator[Callable[[], None]]:
    """Log into a run's directory as long as the block lasts; None: nowhere.

    The file is there from the call of what is yielded on, with what was logged before: who refuses
    a run leaves no directory of it. A disk that is full loses log lines, never the run.
    """
    if directory is None:
        yield lambda: None
        return
    root = logging.getLogger()
    level = root.level
    shown = [(handler, handler.level) for handler in root.handlers]
    for handler, least in shown:
        handler.setLevel(max(level, least))
    file = _RunLog(directory / LOG_FILE)
    file.setFormatter(json_formatter())
    root.addHandler(file)
    root.setLevel(min(level, logging.INFO))
    try:
        yield file.begin
    finally:
        root.removeHandler(file)
        with suppress(OSError):  # a full disk loses what is buffered, not the run's own error
            file.close()
        root.setLevel(level)
        for handler, least in shown:
            handler.setLevel(least)


class _RunLog(logging.FileHandler):
    """A log file whose own troubles are not told: the run tells of a full disk itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._path = path
        self._early: list[logging.LogRecord] | None = []
        """What was logged before the run's directory may be written."""

    def begin(self) -> None:
        """Write what has come so far, and from now on at once."""
        self.acquire()
        early, self._early = self._early or [], None
        self.release()
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        for record in early:
            self.handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or keep it."""
        if self._early is not None:
            self._early.append(record)
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""


def human_line(text: str) -> str:
    """A line of the log file as people read it, with its time of day on this machine."""
    try:
        event = json.loads(text)
    except ValueError:
        return text.rstrip("\n")
    return escaped(f"{_time_of_day(str(event.get('timestamp', '')))} {line_for_people(event)}")


def _time_of_day(timestamp: str) -> str:
    """As all times that the command shows: where its reader is, not in UTC."""
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""


def line_for_people(event: Mapping[str, object]) -> str:
    """What happened, why, and the facts that help."""
    level, name = event.get("level", "info"), str(event.get("event", ""))
    if name == _RETRY:
        cause, wait = event.get("caused_by", ""), event.get("wait_for", 0)
        return f"{level}: a call failed and is made again in {wait} s: {cause}"
    why = str(event.get("message") or event.get("reason") or "")
    facts = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in event.items()
        if key not in _NOT_FOR_PEOPLE and value not in ("", None)
    ]
    return (
        f"{level}: {name.replace('_', ' ')}"
        + (f": {why}" if why else "")
        + (f" ({', '.join(facts)})" if facts else "")
    )


def _render_for_people(logger: object, name: str, event: MutableMapping[str, object]) -> str:
    line = line_for_people(event)
    if event.get("exc_info") and logging.getLogger().isEnabledFor(logging.DEBUG):
        return f"{line}\n{_traceback(event['exc_info'])}"
    return line


def _traceback(exc_info: object) -> str:
    import sys
    import traceback

    error = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]
    return "".join(traceback.format_exception(error)).rstrip() if error else ""
