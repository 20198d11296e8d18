"""EvaluatorService.

Questions by the domain, answers by the engine, grades by the domain, and proof that the adapter was
applied.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import structlog

from evaluator_svc.grading import grade_all
from evaluator_svc.plan import EvaluationLimits, EvaluationPlan, parse_evaluation
from seal.engine import EvaluationRequest, EvaluationResult
from seal.errors import PreconditionFailed
from seal.rpc.engine_calls import Newest, Pace, engine_call, result_of, sample
from seal.v1 import common_pb2, evaluator_pb2, evaluator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache
    from seal.engine import Engine

log = structlog.get_logger(__name__)


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Serves Evaluate."""

    def __init__(
        self, *, engine: Engine, adapters: AdapterCache, limits: EvaluationLimits, pace: Pace
    ) -> None:
        self._engine, self._adapters, self._limits, self._pace = engine, adapters, limits, pace

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        """Stream progress, then the graded result.

        A cancelled call or a passed deadline stops the work; a retry does it again.
        """
        plan = parse_evaluation(request, limits=self._limits)
        self._adapters.check_base_model(plan.base_model)
        engine_request = await self._engine_request(plan)
        progress = Newest(_progress(common_pb2.TASK_STATE_QUEUED, 0, plan))

        def on_progress(done: int) -> None:
            progress.set(_progress(common_pb2.TASK_STATE_RUNNING, done, plan))

        async with engine_call(
            lambda: self._engine.evaluate(engine_request, on_progress=on_progress)
        ) as finished:
            async for news in sample(progress, finished, pace=self._pace):
                yield evaluator_pb2.EvaluateResponse(progress=news)
            evaluated = result_of(finished)
        if plan.adapter is not None:
            _check_applied(plan.adapter.sha256, evaluated)
        result = grade_all(plan, evaluated)
        log.info(
            "evaluation ended",
            run=plan.run,
            request_id=request.request_id,
            queries=len(plan.queries),
            ungraded=result.ungraded,
            reward=round(result.reward, 4),
            engine_seconds=round(result.engine_seconds, 3),
        )
        yield evaluator_pb2.EvaluateResponse(result=result)

    async def _engine_request(self, plan: EvaluationPlan) -> EvaluationRequest:
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        adapter = (
            None
            if plan.adapter is None
            else await self._adapters.get(plan.adapter, field="adapter")
        )
        prompts = [
            plan.domain.question_prompt(query, plan.question_format) for query in plan.queries
        ]
        return EvaluationRequest(
            run=plan.run,
            policy=policy,
            adapter=adapter,
            prompts=tuple(self._engine.render(prompt) for prompt in prompts),
            golds=tuple(
                plan.domain.answer_completion(query.answers[0], plan.question_format)
                for query in plan.queries
            ),
            max_tokens=plan.max_tokens,
            stop=tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
        )


def _progress(
    state: common_pb2.TaskState.ValueType, done: int, plan: EvaluationPlan
) -> evaluator_pb2.EvaluateProgress:
    return evaluator_pb2.EvaluateProgress(
        state=state, queries_done=done, queries_total=len(plan.queries)
    )


def _check_applied(digest: str, evaluated: EvaluationResult) -> None:
    """Raise PreconditionFailed unless the adapted logits are finite and not the policy's."""
    difference = evaluated.max_logit_difference
    if not math.isfinite(difference):
        raise PreconditionFailed(
            f"adapter {digest[:12]} makes the model's logits NaN or infinite",
            field="adapter",
            remedy="train it again at a lower rate",
        )
    if difference == 0:
        raise PreconditionFailed(
            f"adapter was not applied: {digest[:12]} leaves the logits exactly as they are "
            "without it",
            field="adapter",
            remedy="check that the adapter's weights are not all zero and that its layers are the "
            "base model's",
        )
