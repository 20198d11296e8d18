"""A trainer on the real engine with a tiny random model, on one artifact store.

Starting a second one is a restart.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service_harness import DEADLINE_SECONDS, FAST, policy, read_all, serving, training_request
from tiny_model import tiny_model

from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.engine import Engine
from seal.settings import ALL_PROJECTIONS, EngineSettings
from seal.v1 import trainer_pb2, trainer_pb2_grpc
from trainer_svc.service import register
from trainer_svc.trainings import Trainings

MODEL = "tiny-llama"
LORA = trainer_pb2.LoraConfig(rank=64, alpha=128.0, target_modules=ALL_PROJECTIONS)
NEVER_SECONDS = 86_400.0
"""No checkpoint but the last one."""
OFTEN_SECONDS = 1e-6
"""A checkpoint after every step."""


def optimizer(*, epochs: int = 3, learning_rate: float = 2e-3) -> trainer_pb2.OptimizerConfig:
    return trainer_pb2.OptimizerConfig(
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=4,
        schedule="linear",
        warmup_ratio=0.1,
        max_grad_norm=1.0,
    )


def m_step(model: str = MODEL, **changes: object) -> trainer_pb2.TrainAdapterRequest:
    """An M-step in small: r = 64 on all seven projections, 12 rows, batches of 4."""
    rows = [
        trainer_pb2.TrainingExample(
            prompt=f"Learn {n}:\n", completion=f"Tower {n} has {3 * n} lamps."
        )
        for n in range(12)
    ]
    fields = {
        "request_id": "m-step",
        "policy": policy(base_model=model),
        "examples": rows,
        "lora": LORA,
        "optimizer": optimizer(),
        "export_mode": trainer_pb2.EXPORT_MODE_WITH_POLICY,
        "checkpoint_every_seconds": NEVER_SECONDS,
    }
    return training_request(**{**fields, **changes})


@dataclass
class LiveTrainer:
    """One process's worth of trainer."""

    stub: trainer_pb2_grpc.TrainerServiceAsyncStub
    engine: Engine
    store: ArtifactStore
    trainings: Trainings

    async def messages(
        self, request: trainer_pb2.TrainAdapterRequest
    ) -> list[trainer_pb2.TrainAdapterResponse]:
        """Progress and result."""
        return await read_all(self.stub.TrainAdapter(request, timeout=DEADLINE_SECONDS))

    async def result(self, request: trainer_pb2.TrainAdapterRequest) -> trainer_pb2.TrainingResult:
        """The result alone."""
        return (await self.messages(request))[-1].result

    def checkpoints(self) -> tuple[str, ...]:
        """Files of the run's checkpoints."""
        return self.store.list("run/checkpoints")


@asynccontextmanager
async def live_trainer(
    directory: Path, *, store: ArtifactStore | None = None
) -> AsyncIterator[LiveTrainer]:
    """A trainer with a fresh engine."""
    engine = Engine(
        tiny_model(),
        EngineSettings(slots=2, dtype="float32", max_rank=64, max_pass_tokens=150, threads=1),
    )
    store = store or ArtifactStore(str(directory / "artifacts"))
    adapters = AdapterCache(store, base=engine.base)
    trainings = Trainings(engine=engine, store=store, adapters=adapters)
    registration = functools.partial(register, trainings=trainings, adapters=adapters, pace=FAST)
    try:
        async with serving(registration) as channel:
            yield LiveTrainer(
                trainer_pb2_grpc.TrainerServiceStub(channel), engine, store, trainings
            )
            await trainings.close(grace_seconds=0.0)
    finally:
        engine.close()
