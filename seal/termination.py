"""How a pod's process says what it came to: one line of JSON in its termination message.

Kubernetes shows the file's text in the pod's status, where a controller reads it without the
artifact store. It is small (4,096 bytes), so it holds a digest and a reason, never a record.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from seal.errors import PERMANENT_EXIT_CODES, SUPERSEDED, SealError, Superseded, error_class
from seal.records import ShardSummary

log = structlog.get_logger(__name__)

MAX_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
VARIABLE = "SEAL_TERMINATION_MESSAGE"
"""Environment variable that names another file."""
DEFAULT_PATH = Path("/dev/termination-log")
"""Where Kubernetes mounts the file, unless the container says otherwise."""
_MAX_MESSAGE_BYTES, _MAX_FIELD_BYTES = 400, 100
"""JSON may write six bytes for one: together they stay below `MAX_BYTES`."""


class Termination(BaseModel):
    """What a process of a pod came to. Fields of a newer version are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    outcome: Literal["done", "failed"]
    exit_code: int
    """As in the table of `seal.errors`."""
    reason: str = ""
    """Of a failure: CamelCase reason of the error class."""
    message: str = ""
    """For people; cut."""
    field: str = ""
    """Of a failure: dotted path of the offending field."""
    retry_after_seconds: float | None = None
    """Of a failure: the least pause that the failing side asked for."""
    name: str = ""
    """Of a finished shard: its task."""
    result_sha256: str = ""
    """Of a finished shard: digest of its records."""

    @property
    def permanent(self) -> bool:
        """True if another attempt would fail the same way."""
        return self.exit_code in PERMANENT_EXIT_CODES and self.reason != SUPERSEDED


def failure_of(error: SealError) -> Termination:
    """What a process came to that ends with this error."""
    row = error_class(error)
    return Termination(
        outcome="failed",
        exit_code=row.exit_code,
        reason=SUPERSEDED if isinstance(error, Superseded) else row.reason,
        message=_cut(str(error), _MAX_MESSAGE_BYTES),
        field=_cut(error.field, _MAX_FIELD_BYTES),
        retry_after_seconds=error.retry_after_seconds,
    )


def done_of(summary: ShardSummary, *, name: str, said: str) -> Termination:
    """What a process came to that has done, or found done, the shard that `name` names."""
    return Termination(
        outcome="done",
        exit_code=0,
        message=_cut(said, _MAX_MESSAGE_BYTES),
        name=name,
        result_sha256=summary.result_sha256,
    )


def write_termination(termination: Termination) -> None:
    """Leave it where Kubernetes looks; outside a pod, where that file is not, nothing is written.

    It is told best: a file that cannot be written changes nothing about how the process ends.
    """
    given = os.environ.get(VARIABLE, "")
    path = Path(given) if given else DEFAULT_PATH
    if not given and not path.exists():
        return
    text = termination.model_dump_json(by_alias=True, exclude_defaults=True)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning("no termination message", path=str(path), error=str(error))


def read_termination(text: str) -> Termination | None:
    """What a termination message says; None if it is none of ours.

    A process that ended before it could write one leaves its last log lines there
    (`terminationMessagePolicy: FallbackToLogsOnError`), of which the last is JSON too.
    """
    for line in reversed(text.strip().splitlines()):
        if not line.startswith("{"):
            continue
        try:
            return Termination.model_validate_json(line)
        except ValidationError:
            return _of_log_line(line)
    return None


class _LogLine(BaseModel):
    """The last line of a process that `seal.serving` ends."""

    model_config = ConfigDict(extra="ignore")

    message: str
    reason: str
    exit_code: int
    remedy: str = ""
    field: str = ""


def _of_log_line(line: str) -> Termination | None:
    try:
        said = _LogLine.model_validate_json(line)
    except ValidationError:
        return None
    return Termination(
        outcome="failed",
        exit_code=said.exit_code,
        reason=said.reason,
        message=_cut(
            f"{said.message}; {said.remedy}" if said.remedy else said.message, _MAX_MESSAGE_BYTES
        ),
        field=_cut(said.field, _MAX_FIELD_BYTES),
    )


def _cut(text: str, limit: int) -> str:
    """At most so many bytes, cut on a character."""
    return text.encode()[:limit].decode(errors="ignore")
