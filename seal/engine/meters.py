"""What becomes of an engine's requests, and what memory it holds, as metrics."""

from __future__ import annotations

import os
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from seal.engine.queues import EngineTask, Kind
from seal.errors import UnfitItem
from seal.metrics import metrics
from seal.outcomes import Outcome

FAILED = "failed"
"""Outcome of a request that may be sent again: it was not at fault, or nobody knows."""
_STATM = Path("/proc/self/statm")


def follow(kind: Kind, task: EngineTask[Any]) -> None:
    """Count a request that is queued, once it has ended."""
    task.future.add_done_callback(
        lambda _: metrics.engine_requests.labels(kind, outcome_of(task)).inc()
    )


def begun(kind: Kind, task: EngineTask[Any]) -> None:
    """Note how long a request has waited that is taken out of its queue."""
    waited_seconds = time.monotonic() - task.queued_at
    metrics.engine_queue_wait_seconds.labels(kind).observe(waited_seconds)


def outcome_of(task: EngineTask[Any]) -> str:
    """How a request has ended: an `Outcome`, or `FAILED`."""
    try:
        error = task.future.exception()
    except CancelledError:
        return Outcome.CANCELLED
    if isinstance(error, UnfitItem):
        return error.outcome
    if error is not None:
        return Outcome.CANCELLED if task.cancelled else FAILED
    # Only trainings have an end of their own beside a result and an error
    return getattr(task.future.result(), "outcome", Outcome.OK)


def resident_bytes() -> float:
    """Memory of this process that is in RAM; NaN where the system does not tell."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
