"""Stops the trainings of what was cancelled, which nobody waits for any more.

A training belongs to the trainer and goes on without its callers, so that a worker that is evicted,
suspended or killed finds it again. All these ends look alike to a worker, which cannot tell that
its adaptation was cancelled; and the end of a training that is cancelled is final, so it must not
guess. The controller knows, and leaves a mark in the store that all share. A mark is there after a
crash of anybody: whoever has the training sees it at the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.runs.cancelled import is_cancelled
from trainer_svc.training import Training

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks: a request to the store for each run that has a training."""


class Unwanted:
    """Looks for cancelled runs as long as there are trainings; belongs to one event loop."""

    def __init__(
        self,
        store: ArtifactStore,
        live: Mapping[tuple[str, str], Training],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`live`: the trainings at the time, by run and request id."""
        self._store, self._live, self._look_seconds = store, live, look_seconds
        self._looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """A training has come."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="unwanted trainings")

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while self._live:
            await asyncio.sleep(self._look_seconds)
            for run in {run for run, _ in self._live}:
                try:
                    if await is_cancelled(self._store, run):
                        self._stop(run)
                except SealError as error:
                    log.info("not known whether a run is cancelled", run=run, reason=str(error))

    def _stop(self, run: str) -> None:
        for (of_run, request_id), training in self._live.items():
            # What another trainer does, that one stops
            if of_run == run and not training.cancel_requested and not training.following:
                log.info("training unwanted", run=run, request_id=request_id)
                training.stop()
