"""The worker's clients of the three services: one call in, one record out."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from controller_svc.worker.calls import Calls
from controller_svc.worker.evaluator_client import EvaluatorClient
from controller_svc.worker.generator_client import GeneratorClient
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from controller_svc.worker.trainer_client import TrainerClient
from seal.rpc.client import open_channel


class ServiceClients:
    """Clients of the three services; an async context manager that owns their channels."""

    def __init__(self, addresses: ServiceAddresses, settings: WorkerSettings) -> None:
        self._calls = calls = Calls(settings)
        self._channels = channels = {
            address: open_channel(address)
            for address in {addresses.generator, addresses.evaluator, addresses.edit_generator}
            if address
        }
        self.generator = GeneratorClient(
            calls, channels[addresses.generator], endpoint=channels.get(addresses.edit_generator)
        )
        self.evaluator = EvaluatorClient(calls, channels[addresses.evaluator])
        self.trainer = TrainerClient(calls, addresses.trainer)
        """That of the model that learns edits and answers."""
        self.writer_trainer = (
            TrainerClient(calls, addresses.writer_trainer) if addresses.writer_trainer else None
        )
        """That of the model that writes; None where one model does both."""

    @property
    def policy_trainer(self) -> TrainerClient:
        """That of the model whose policy is trained: the one that writes."""
        return self.writer_trainer or self.trainer

    @property
    def max_request_bytes(self) -> int:
        """Largest request that a service takes."""
        return self._calls.settings.max_request_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        for trainer in self._trainers:
            await trainer.close()

    async def cancel_trainings(self, run: str) -> None:
        """Stop all trainings that were asked for a run that has ended."""
        for trainer in self._trainers:
            await trainer.cancel_trainings(run)

    @property
    def _trainers(self) -> tuple[TrainerClient, ...]:
        writer = self.writer_trainer
        return (self.trainer,) if writer is None else (self.trainer, writer)
