"""The worker's clients of the three services: one call in, one record out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import structlog

from controller_svc.worker.calls import Calls
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from seal.errors import Internal, SealError, Transient
from seal.outcomes import Outcome
from seal.records import EvaluationRecord, ModelDescription, TrainingRecord
from seal.rpc.client import open_channel, rpc_errors
from seal.rpc.convert import (
    OUTCOME_TO_WIRE,
    description_record,
    evaluation_record,
    lora_message,
    training_record,
)
from seal.rpc.rendezvous import Replicas
from seal.settings import LoraSettings
from seal.v1 import (
    common_pb2,
    evaluator_pb2,
    evaluator_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

log = structlog.get_logger(__name__)

UNARY_TIMEOUT_SECONDS = 120.0
"""Deadline of a call that is answered at once."""
CANCEL_TIMEOUT_SECONDS = 15.0
"""Deadline of a cancel, which waits for the engine's current step."""
_FRAME_BYTES = 16
"""What a message's entry in a list takes beside its content, at most."""

OnGenerate = Callable[[int, int], None]
"""(edits done, tokens) of a generation."""
OnTrain = Callable[[int, int], None]
"""(step, total steps) of a training."""
OnResumed = Callable[[int], None]
"""Step at which a training went on from a checkpoint."""
OnEvaluate = Callable[[int], None]
"""Queries answered of an evaluation."""


class ServiceClients:
    """Clients of the three services; an async context manager that owns their channels."""

    def __init__(self, addresses: ServiceAddresses, settings: WorkerSettings) -> None:
        self._calls = Calls(settings)
        self._channels = {
            address: open_channel(address)
            for address in {addresses.generator, addresses.evaluator, addresses.edit_generator}
            if address
        }
        self._generator = generator_pb2_grpc.GeneratorServiceStub(
            self._channels[addresses.generator]
        )
        self._edit_generator = (
            generator_pb2_grpc.GeneratorServiceStub(self._channels[addresses.edit_generator])
            if addresses.edit_generator
            else None
        )
        self._trainers = Replicas(addresses.trainer)
        self._unfinished: dict[str, set[str]] = {}
        """Trainings without an end, by run: they belong to the trainer and go on without us."""
        self.writer = (
            ServiceClients(addresses.of_writer, settings) if addresses.writer_trainer else None
        )
        """The same with the trainer of the model that writes; None where one model does both."""
        self._evaluator = evaluator_pb2_grpc.EvaluatorServiceStub(
            self._channels[addresses.evaluator]
        )

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
        await self._trainers.close()
        if self.writer is not None:
            await self.writer.__aexit__(kind, error, trace)

    @property
    def has_edit_generator(self) -> bool:
        """Whether a model at an endpoint can write edits."""
        return self._edit_generator is not None

    @property
    def max_request_bytes(self) -> int:
        """Largest request that a service takes."""
        return self._calls.settings.max_request_bytes

    async def generate(
        self,
        request: generator_pb2.GenerateEditsRequest,
        on_progress: OnGenerate,
        *,
        by_endpoint: bool = False,
    ) -> tuple[generator_pb2.ContextEdits, ...]:
        """One ContextEdits per context of the request, in its order, with one edit per seed.

        `by_endpoint`: written by the model at an endpoint.

        Raises:
            SealError: what the service answered, after the retries; Internal if it delivered other
                contexts or seeds.

        """
        generator = self._generator
        if by_endpoint:
            if self._edit_generator is None:
                raise Internal("no generator for a model at an endpoint is known")
            generator = self._edit_generator

        async def once() -> tuple[generator_pb2.ContextEdits, ...]:
            results = []
            async with aclosing(
                self._calls.events(
                    generator.GenerateEdits(
                        self._calls.sized(request),
                        timeout=self._calls.timeout_seconds,
                    )
                )
            ) as events:
                async for response in events:
                    if response.HasField("context_edits"):
                        results.append(response.context_edits)
                    else:
                        on_progress(response.progress.edits_done, response.progress.tokens)
            _check_edits(request, results)
            return tuple(results)

        return await self._calls.retried(once)

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
                self._trainers.channel(request.request_id) as channel,
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
            async with self._trainers.channel(request_id) as channel:
                stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                try:
                    with rpc_errors():
                        await stub.CancelTraining(request, timeout=CANCEL_TIMEOUT_SECONDS)
                except SealError as error:
                    log.info("training not cancelled", run=run, reason=str(error))

        await asyncio.gather(*map(cancel, self._unfinished.pop(run, ())))
        if self.writer is not None:
            await self.writer.cancel_trainings(run)

    async def evaluate(
        self, request: evaluator_pb2.EvaluateRequest, on_progress: OnEvaluate
    ) -> EvaluationRecord:
        """The end of one evaluation.

        Raises:
            SealError: what the service answered, after the retries.

        """

        async def once() -> EvaluationRecord:
            async with aclosing(
                self._calls.events(
                    self._evaluator.Evaluate(
                        self._calls.sized(request),
                        timeout=self._calls.timeout_seconds,
                    )
                )
            ) as events:
                async for response in events:
                    if response.HasField("result"):
                        return evaluation_record(request, response.result)
                    on_progress(response.progress.queries_done)
            raise Transient(
                f"evaluation {request.request_id} ended without a result",
                remedy="is the evaluator being restarted?",
            )

        return await self._calls.retried(once)

    async def rate(self, request: evaluator_pb2.RateEditsRequest) -> tuple[float | None, ...]:
        """The judge's rating of each edit; None where it gave none.

        Raises:
            SealError: what the service answered, after the retries.

        """

        async def once() -> tuple[float | None, ...]:
            async with aclosing(
                self._calls.events(
                    self._evaluator.RateEdits(
                        self._calls.sized(request), timeout=self._calls.timeout_seconds
                    )
                )
            ) as events:
                async for response in events:
                    if response.HasField("result"):
                        return tuple(
                            rating.rating if rating.outcome == common_pb2.OUTCOME_OK else None
                            for rating in response.result.ratings
                        )
            raise Transient(
                f"rating {request.request_id} ended without a result",
                remedy="is the evaluator being restarted?",
            )

        return await self._calls.retried(once)

    async def describe_judge(self) -> str:
        """Name of the model that judges.

        Raises:
            PreconditionFailed: the evaluator has none, or its settings are at fault.
            SealError: what the service answered, after the retries.

        """

        async def once() -> str:
            with rpc_errors():
                described = await self._evaluator.DescribeJudge(
                    evaluator_pb2.DescribeJudgeRequest(), timeout=self._calls.timeout_seconds
                )
            return described.model

        return await self._calls.retried(once)

    async def describe(
        self, policy: common_pb2.PolicyRef, loras: Sequence[LoraSettings] = ()
    ) -> ModelDescription:
        """What the trainer has loaded, if it is the base model of `policy`.

        It says of every shape of `loras` whether its memory has room for it.

        Raises:
            InvalidInput: it is another one.
            SealError: what the service answered, after the retries.

        """
        request = trainer_pb2.DescribeModelRequest(
            policy=policy, loras=[lora_message(lora) for lora in loras]
        )

        async def once() -> ModelDescription:
            async with self._trainers.channel(policy.base_model) as channel:
                with rpc_errors():
                    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                    return description_record(
                        await stub.DescribeModel(request, timeout=UNARY_TIMEOUT_SECONDS)
                    )

        return await self._calls.retried(once)

    async def generator_max_rank(self, policy: common_pb2.PolicyRef) -> int:
        """Largest LoRA that the generator writes with, if it has the base model of `policy`.

        0 is a generator without such a bound. Raises as `describe`.
        """

        async def once() -> int:
            request = generator_pb2.DescribeGeneratorRequest(policy=policy)
            with rpc_errors():
                described = await self._generator.DescribeGenerator(
                    request, timeout=UNARY_TIMEOUT_SECONDS
                )
            return described.max_rank

        return await self._calls.retried(once)

    async def evaluator_max_rank(self, policy: common_pb2.PolicyRef) -> int:
        """The same of the evaluator, whose LoRAs are a policy and an adapter together."""

        async def once() -> int:
            request = evaluator_pb2.DescribeEvaluatorRequest(policy=policy)
            with rpc_errors():
                described = await self._evaluator.DescribeEvaluator(
                    request, timeout=UNARY_TIMEOUT_SECONDS
                )
            return described.max_rank

        return await self._calls.retried(once)

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """Tokens of each row, as the trainer would lay them out.

        Raises:
            InvalidInput: a chat, and the model has no chat template.
            SealError: what the service answered, after the retries.

        """
        counts: list[int] = []
        for part in self._parts(examples):
            request = trainer_pb2.CountTokensRequest(examples=part)

            async def once(
                request: trainer_pb2.CountTokensRequest = request,
            ) -> Sequence[int]:
                async with self._trainers.channel("count") as channel:
                    with rpc_errors():
                        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                        response = await stub.CountTokens(request, timeout=UNARY_TIMEOUT_SECONDS)
                return response.row_tokens

            counts += await self._calls.retried(once)
        return counts

    def _parts(
        self, examples: Sequence[trainer_pb2.TrainingExample]
    ) -> Iterator[list[trainer_pb2.TrainingExample]]:
        """Examples in requests that a service accepts."""
        part: list[trainer_pb2.TrainingExample] = []
        size = 0
        for example in examples:
            own = example.ByteSize() + _FRAME_BYTES
            if part and size + own > self._calls.settings.max_request_bytes:
                yield part
                part, size = [], 0
            part.append(example)
            size += own
        if part:
            yield part


def _check_edits(
    request: generator_pb2.GenerateEditsRequest, results: list[generator_pb2.ContextEdits]
) -> None:
    """Refuse mixed up contexts or seeds, which would train the wrong thing and not show."""
    asked = [(context.context_id, list(context.seeds)) for context in request.contexts]
    given = [(result.context_id, _seeds(request, result)) for result in results]
    if len(given) < len(asked) and given == asked[: len(given)]:
        raise Transient(
            f"generation {request.request_id} ended before its last context",
            remedy="is the generator being restarted?",
        )
    if given != asked:
        raise Internal(
            f"generation {request.request_id} delivered other contexts or seeds than it was asked "
            "for"
        )
    for result in results:
        if any(len(edit.parts) != len(result.parts) for edit in result.edits):
            raise Internal(
                f"generation {request.request_id} delivered edits of {result.context_id!r} with "
                "other parts than were asked for"
            )


def _seeds(
    request: generator_pb2.GenerateEditsRequest, result: generator_pb2.ContextEdits
) -> list[int]:
    """The seeds of a context's edits; those that were asked for if its outcome is to have none."""
    if not result.edits and result.outcome in _NO_EDITS:
        return [
            seed
            for context in request.contexts
            if context.context_id == result.context_id
            for seed in context.seeds
        ]
    return [edit.seed for edit in result.edits]


_NO_EDITS = frozenset(
    wire for outcome, wire in OUTCOME_TO_WIRE.items() if outcome is not Outcome.OK
)
