"""The worker's client of a trainer, each of whose replicas holds the trainings it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing

import structlog

from controller_svc.worker.calls import UNARY_TIMEOUT_SECONDS, Calls
from seal.errors import SealError, Transient
from seal.records import ModelDescription, TrainingRecord
from seal.rpc.client import rpc_errors
from seal.rpc.convert import description_record, lora_message, training_record
from seal.rpc.rendezvous import Replicas
from seal.settings import LoraSettings
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_SECONDS = 15.0
"""Deadline of a cancel, which waits some seconds for the engine's current step."""
CANCEL_TRIES = 12
"""Of one cancel, where that step takes longer: what ends later still writes a result."""
_FRAME_BYTES = 16
"""What a message's entry in a list takes beside its content, at most."""

OnTrain = Callable[[int, int], None]
"""(step, total steps) of a training."""
OnResumed = Callable[[int], None]
"""Step at which a training went on from a checkpoint."""


class TrainerClient:
    """Calls a trainer; owns the channels of its replicas."""

    def __init__(self, calls: Calls, address: str) -> None:
        self._calls, self._replicas = calls, Replicas(address)
        self._unfinished: dict[str, set[str]] = {}
        """Trainings without an end, by run: they belong to the trainer and go on without us."""

    async def close(self) -> None:
        """Close its channels."""
        await self._replicas.close()

    @property
    def max_request_bytes(self) -> int:
        """Largest request that it takes."""
        return self._calls.settings.max_request_bytes

    async def train(
        self,
        request: trainer_pb2.TrainAdapterRequest,
        on_progress: OnTrain,
        on_resumed: OnResumed | None = None,
    ) -> TrainingRecord:
        """The end of one training.

        `on_resumed` is called before the first progress of one that goes on from a checkpoint.

        Raises:
            SealError: what the service answered, after the retries.

        """
        unfinished = self._unfinished.setdefault(request.run, set())
        unfinished.add(request.request_id)

        async def once() -> TrainingRecord:
            resumed_step = 0
            async with (
                self._replicas.channel(request.request_id) as channel,
                aclosing(
                    self._calls.events(
                        trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
                            self._calls.sized(request),
                            timeout=self._calls.timeout_seconds,
                        )
                    )
                ) as events,
            ):
                async for response in events:
                    if response.HasField("result"):
                        unfinished.discard(request.request_id)
                        return training_record(response.result)
                    if on_resumed is not None and response.progress.resumed_step != resumed_step:
                        resumed_step = response.progress.resumed_step
                        on_resumed(resumed_step)
                    on_progress(response.progress.step, response.progress.total_steps)
            raise Transient(
                f"training {request.request_id} ended without a result",
                remedy="is the trainer being restarted?",
            )

        return await self._calls.retried(once)

    async def cancel_trainings(self, run: str) -> None:
        """Stop what was asked for a run that has ended; each training's end is then final.

        A trainer that is away is not waited for: it only does work that nobody wants.
        """

        async def cancel(request_id: str) -> None:
            request = trainer_pb2.CancelTrainingRequest(run=run, request_id=request_id)
            try:
                async with self._replicas.channel(request_id) as channel:
                    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                    with rpc_errors():
                        for _ in range(CANCEL_TRIES):
                            answer = await stub.CancelTraining(
                                request, timeout=CANCEL_TIMEOUT_SECONDS
                            )
                            if answer.state == common_pb2.TASK_STATE_DONE:
                                return
            except SealError as error:
                log.info("training not cancelled", run=run, reason=str(error))

        await asyncio.gather(*map(cancel, self._unfinished.pop(run, ())))

    async def describe(
        self, policy: common_pb2.PolicyRef, loras: Sequence[LoraSettings] = ()
    ) -> ModelDescription:
        """What it has loaded, if that is the base model of `policy`.

        It says of every shape of `loras` whether its memory has room for it.

        Raises:
            InvalidInput: it is another one.
            SealError: what the service answered, after the retries.

        """
        request = trainer_pb2.DescribeModelRequest(
            policy=policy, loras=[lora_message(lora) for lora in loras]
        )

        async def once() -> ModelDescription:
            async with self._replicas.channel(policy.base_model) as channel:
                with rpc_errors():
                    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                    return description_record(
                        await stub.DescribeModel(request, timeout=UNARY_TIMEOUT_SECONDS)
                    )

        return await self._calls.retried(once)

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """Tokens of each row, as the trainer would lay them out.

        Raises:
            InvalidInput: a chat, and the model has no chat template.
            SealError: what the service answered, after the retries.

        """
        counts: list[int] = []
        for part in self._parts(examples):
            counts += await self._count(trainer_pb2.CountTokensRequest(examples=part))
        return counts

    async def _count(self, request: trainer_pb2.CountTokensRequest) -> Sequence[int]:
        async def once() -> Sequence[int]:
            async with self._replicas.channel("count") as channel:
                with rpc_errors():
                    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                    response = await stub.CountTokens(request, timeout=UNARY_TIMEOUT_SECONDS)
            return response.row_tokens

        return await self._calls.retried(once)

    def _parts(
        self, examples: Sequence[trainer_pb2.TrainingExample]
    ) -> Iterator[list[trainer_pb2.TrainingExample]]:
        """Examples in requests that a service accepts."""
        part: list[trainer_pb2.TrainingExample] = []
        size = 0
        for example in examples:
            own = example.ByteSize() + _FRAME_BYTES
            if part and size + own > self.max_request_bytes:
                yield part
                part, size = [], 0
            part.append(example)
            size += own
        if part:
            yield part
