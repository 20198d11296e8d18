"""A base model that is still on its way to a volume: a process that needs it waits, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from seal.errors import NotFound
from seal.model_files import IncompleteModel
from seal.models import ResolvedModel, resolve_model

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Time between two looks."""
SAY_SECONDS = 10.0
"""Time between two lines of the log."""


def await_model(
    source: str,
    *,
    models_dir: Path | None,
    offline: bool,
    wait_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ResolvedModel:
    """The model, once it is there and whole.

    Raises what `resolve_model` raises: what no waiting changes at once, the rest after
    `wait_seconds`.
    """
    begun, said = clock(), -SAY_SECONDS
    while True:
        try:
            return resolve_model(source, models_dir=models_dir, offline=offline)
        except (NotFound, IncompleteModel) as error:
            waited = clock() - begun
            if waited >= wait_seconds:
                raise
            if waited - said >= SAY_SECONDS:
                said = waited
                log.warning(
                    "waiting for the model",
                    model=source,
                    waited_seconds=round(waited),
                    wait_seconds=wait_seconds,
                    reason=error.message,
                )
        sleep(LOOK_SECONDS)
