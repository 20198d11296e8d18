"""The real services on a real engine with a tiny random model, as `resume_harness` starts them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from controller_svc.local.services import local_services
from controller_svc.worker.settings import ServiceAddresses
from seal.settings import EngineSettings, RunSpec
from trainer_svc.trainings import Training, Trainings

ENGINE = EngineSettings(
    slots=4, dtype="float32", max_rank=8, generation_rows=8, evaluation_rows=16, threads=1
)
"""A small engine, for tiny models."""


def log_trainings(log: Path) -> Callable[[], None]:
    """Log every training that the trainer begins (not those whose stored result it only hands out).

    Returns what undoes it. One that ended and had gone on from a checkpoint gets a second line:
    `pid resumed STEP/STEPS REQUEST_ID`.
    """
    begin = Trainings._train

    async def logged(self: Trainings, training: Training) -> object:
        with log.open("a", encoding="utf-8") as handle:
            handle.write(f"{os.getpid()} train {training.plan.request_id}\n")
        result = await begin(self, training)
        if resumed := training.progress.value.resumed_step:
            with log.open("a", encoding="utf-8") as handle:
                handle.write(
                    f"{os.getpid()} resumed {resumed}/{result.steps} {training.plan.request_id}\n"
                )
        return result

    Trainings._train = logged  # type: ignore[method-assign,assignment]

    def undo() -> None:
        Trainings._train = begin  # type: ignore[method-assign]

    return undo


@asynccontextmanager
async def resume_services(spec: RunSpec, root: str, log: Path) -> AsyncIterator[ServiceAddresses]:
    """Local mode's own services."""
    undo = log_trainings(log)
    try:
        async with local_services(spec.model, root=root, engine=ENGINE) as services:
            yield services.addresses
    finally:
        undo()
