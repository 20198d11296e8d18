"""The worker's client of the evaluator: evaluations, and the ratings of a judge."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import grpc.aio

from controller_svc.worker.calls import UNARY_TIMEOUT_SECONDS, Calls
from seal.errors import Transient
from seal.records import EvaluationRecord
from seal.rpc.convert import evaluation_record
from seal.v1 import common_pb2, evaluator_pb2, evaluator_pb2_grpc

OnEvaluate = Callable[[int], None]
"""Queries answered of an evaluation."""


class EvaluatorClient:
    """Calls the evaluator."""

    def __init__(self, calls: Calls, channel: grpc.aio.Channel) -> None:
        self._calls = calls
        self._stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)

    async def evaluate(
        self, request: evaluator_pb2.EvaluateRequest, on_progress: OnEvaluate
    ) -> EvaluationRecord:
        """The end of one evaluation.

        Raises:
            SealError: what the service answered, after the retries.

        """

        async def once() -> EvaluationRecord:
            call = self._stub.Evaluate(
                self._calls.sized(request), timeout=self._calls.timeout_seconds
            )
            async with aclosing(self._calls.events(call)) as events:
                async for response in events:
                    if response.HasField("result"):
                        return evaluation_record(request, response.result)
                    on_progress(response.progress.queries_done)
            raise _cut_off(f"evaluation {request.request_id}")

        return await self._calls.retried(once)

    async def rate(self, request: evaluator_pb2.RateEditsRequest) -> tuple[float | None, ...]:
        """The judge's rating of each edit; None where it gave none.

        Raises:
            SealError: what the service answered, after the retries.

        """

        async def once() -> tuple[float | None, ...]:
            call = self._stub.RateEdits(
                self._calls.sized(request), timeout=self._calls.timeout_seconds
            )
            async with aclosing(self._calls.events(call)) as events:
                async for response in events:
                    if response.HasField("result"):
                        return tuple(
                            rating.rating if rating.outcome == common_pb2.OUTCOME_OK else None
                            for rating in response.result.ratings
                        )
            raise _cut_off(f"rating {request.request_id}")

        return await self._calls.retried(once)

    async def describe_judge(self) -> str:
        """Name of the model that judges, which a verdict has proved.

        It says nothing meanwhile, and is given up like a stream that says nothing: a try that could
        last longer would be taken for one that went well for a while, and have no end.

        Raises:
            PreconditionFailed: the evaluator has none, or its settings are at fault.
            SealError: what the service answered, after the retries.

        """
        request = evaluator_pb2.DescribeJudgeRequest()
        described = await self._calls.answered(
            lambda: self._stub.DescribeJudge(
                request, timeout=self._calls.settings.silence_timeout_seconds
            )
        )
        return described.model

    async def max_rank(self, policy: common_pb2.PolicyRef) -> int:
        """Largest LoRA that it answers with, a policy and an adapter together.

        0 is an evaluator without such a bound.

        Raises:
            InvalidInput: it has another base model than `policy`.
            SealError: what the service answered, after the retries.

        """
        request = evaluator_pb2.DescribeEvaluatorRequest(policy=policy)
        described = await self._calls.answered(
            lambda: self._stub.DescribeEvaluator(request, timeout=UNARY_TIMEOUT_SECONDS)
        )
        return described.max_rank


def _cut_off(work: str) -> Transient:
    return Transient(f"{work} ended without a result", remedy="is the evaluator being restarted?")
