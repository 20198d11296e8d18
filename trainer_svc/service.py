"""TrainerService: a thin shell over `Trainings`.

It checks the request, streams progress and turns records into messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from seal.outcomes import Outcome
from seal.records import ModelDescription, TrainingRecord
from seal.rpc import validation
from seal.rpc.convert import base_reference, description_message, training_message
from seal.rpc.engine_calls import Pace, sample
from seal.rpc.settings import ServerSettings
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc
from trainer_svc.claims import Claim
from trainer_svc.examples import with_examples
from trainer_svc.plan import parse_counting, parse_lora, parse_training
from trainer_svc.results import StoredTraining
from trainer_svc.trainings import Trainings

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache


MAX_MESSAGE_BYTES = ServerSettings().max_message_bytes
MAX_SHAPES = 64
"""Shapes of adapters that one DescribeModel looks at."""


def register(
    server: grpc.aio.Server,
    *,
    trainings: Trainings,
    adapters: AdapterCache,
    pace: Pace | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> str:
    """Add the service to `server`; returns its full name for health checks.

    `max_message_bytes`: of `server`, for those who ask. The caller ends the trainings once the
    server has stopped: `trainings.close`.
    """
    service = TrainerService(
        trainings=trainings,
        adapters=adapters,
        pace=pace or Pace(),
        max_message_bytes=max_message_bytes,
    )
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(service, server)
    return trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name


class TrainerService(trainer_pb2_grpc.TrainerServiceServicer):
    """Serves trainings, and says what the loaded model can take."""

    def __init__(
        self,
        *,
        trainings: Trainings,
        adapters: AdapterCache,
        pace: Pace,
        max_message_bytes: int,
    ) -> None:
        self._trainings, self._adapters, self._pace = trainings, adapters, pace
        self._max_message_bytes = max_message_bytes

    async def TrainAdapter(
        self, request: trainer_pb2.TrainAdapterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[trainer_pb2.TrainAdapterResponse]:
        """Start or join a training, stream its progress, end with its result.

        The client may leave: the training goes on.
        """
        if request.HasField("examples_file"):
            request = await asyncio.to_thread(with_examples, request, self._trainings.store)
        # A request of many rows takes seconds to check: health is answered meanwhile
        plan = await asyncio.to_thread(parse_training, request)
        self._adapters.check_base(plan.base)
        training = self._trainings.attach(plan, time_left=context.time_remaining())
        async for progress in sample(
            training.progress, training.task, pace=self._pace, alive=self._trainings.alive
        ):
            yield trainer_pb2.TrainAdapterResponse(progress=progress)
        yield trainer_pb2.TrainAdapterResponse(result=training_message(await training.result()))

    async def GetTraining(
        self, request: trainer_pb2.GetTrainingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.GetTrainingResponse:
        """Last progress, and the result once it has ended."""
        run, request_id = (
            validation.run_name(request.run),
            validation.request_id(request.request_id),
        )
        found = await self._trainings.find(run=run, request_id=request_id)
        if isinstance(found, StoredTraining):
            return trainer_pb2.GetTrainingResponse(
                progress=_ended(found.result), result=training_message(found.result)
            )
        progress = found.progress if isinstance(found, Claim) else found.progress.value
        return trainer_pb2.GetTrainingResponse(progress=progress)

    async def CancelTraining(
        self,
        request: trainer_pb2.CancelTrainingRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> trainer_pb2.CancelTrainingResponse:
        """Stop one training.

        Its outcome CANCELLED is final: a new attempt takes a new request_id.
        """
        run, request_id = (
            validation.run_name(request.run),
            validation.request_id(request.request_id),
        )
        ended = await self._trainings.cancel(run=run, request_id=request_id)
        return trainer_pb2.CancelTrainingResponse(
            state=common_pb2.TASK_STATE_DONE if ended else common_pb2.TASK_STATE_RUNNING
        )

    async def DescribeModel(
        self,
        request: trainer_pb2.DescribeModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> trainer_pb2.DescribeModelResponse:
        """The loaded base model, if it is the one that the caller means."""
        self._adapters.check_base(base_reference(request.policy))
        engine = self._trainings.engine
        limits = engine.limits
        loras = [
            parse_lora(lora, field=f"loras[{place}]")
            for place, lora in enumerate(request.loras[:MAX_SHAPES])
        ]
        return description_message(
            ModelDescription(
                base_model=engine.base.name,
                base_sha256=engine.base.sha256,
                max_positions=limits.max_positions,
                max_row_tokens=limits.max_row_tokens,
                max_rank=limits.max_rank,
                target_modules=limits.target_modules,
                dtype=limits.dtype,
                device=limits.device,
                max_message_bytes=self._max_message_bytes,
                lora_refusals=tuple(map(engine.shape_refusal, loras)),
            )
        )

    async def CountTokens(
        self, request: trainer_pb2.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.CountTokensResponse:
        """Lengths of rows as they would be trained."""
        rows = await asyncio.to_thread(parse_counting, request)
        tokens = await asyncio.to_thread(self._trainings.engine.row_tokens, rows)
        return trainer_pb2.CountTokensResponse(row_tokens=tokens)


def _ended(record: TrainingRecord) -> trainer_pb2.TrainingProgress:
    total = record.steps if record.outcome is Outcome.OK else 0
    return trainer_pb2.TrainingProgress(
        state=common_pb2.TASK_STATE_DONE,
        step=record.steps,
        total_steps=total,
        loss=record.final_loss,
    )
