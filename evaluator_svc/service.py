"""EvaluatorService.

Questions by the domain, answers by the engine, grades by the domain, and proof that the adapter was
applied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from evaluator_svc.grading import adapter_outcome, grade_all, without_grades
from evaluator_svc.plan import EvaluationLimits, EvaluationPlan, parse_evaluation
from seal.engine import EvaluationRequest, EvaluationResult
from seal.errors import UnfitItem
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_FROM_WIRE
from seal.rpc.engine_calls import Newest, Pace, engine_call, sample, shows_life
from seal.rpc.line import EngineTask, Line
from seal.v1 import common_pb2, evaluator_pb2, evaluator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache
    from seal.backends import Answerer
    from seal.engine import Adapter

log = structlog.get_logger(__name__)


def register(
    server: grpc.aio.Server,
    *,
    engine: Answerer,
    adapters: AdapterCache,
    pace: Pace | None = None,
) -> str:
    """Add the service to `server`; returns its full name for health checks."""
    service = EvaluatorService(engine=engine, adapters=adapters, pace=pace or Pace())
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(service, server)
    return evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Serves Evaluate."""

    def __init__(self, *, engine: Answerer, adapters: AdapterCache, pace: Pace) -> None:
        self._engine, self._adapters, self._pace = engine, adapters, pace
        self._line = Line("evaluate")

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        """Stream progress, then the graded result.

        What is the fault of a query (its prompt is too long) or of the adapter is an outcome.
        A cancelled call or a passed deadline stops the work; a retry does it again.
        """
        plan = parse_evaluation(request, limits=EvaluationLimits())
        self._adapters.check_base(plan.base)
        adapters = await self._fetch(plan)
        progress = Newest(_progress(common_pb2.TASK_STATE_QUEUED, 0, plan))

        def on_progress(done: int) -> None:
            progress.set(_progress(common_pb2.TASK_STATE_RUNNING, done, plan))

        asked, unfit = list(range(len(plan.queries))), dict[int, Outcome]()
        evaluated: EvaluationResult | None = None
        while evaluated is None and asked:
            try:
                async with engine_call(
                    self._start(plan, adapters, asked, on_progress),
                    line=self._line,
                    time_left=context.time_remaining,
                ) as finished:
                    async for news in sample(
                        progress, finished, pace=self._pace, alive=lambda: shows_life(self._engine)
                    ):
                        yield evaluator_pb2.EvaluateResponse(progress=news)
                    evaluated = finished.result()
            except UnfitItem as error:
                _leave_out(error, asked, unfit)
        result = _result(plan, asked, evaluated, unfit)
        log.info(
            "evaluation ended",
            run=plan.run,
            request_id=request.request_id,
            outcome=OUTCOME_FROM_WIRE[result.outcome].value,
            queries=len(plan.queries),
            ungraded=result.ungraded,
            reward=round(result.reward, 4),
            engine_seconds=round(result.engine_seconds, 3),
        )
        yield evaluator_pb2.EvaluateResponse(result=result)

    async def _fetch(self, plan: EvaluationPlan) -> tuple[Adapter | None, Adapter | None]:
        """Policy and adapter of a request."""
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
        return policy, adapter

    def _start(
        self,
        plan: EvaluationPlan,
        adapters: tuple[Adapter | None, Adapter | None],
        asked: Sequence[int],
        on_progress: Callable[[int], None],
    ) -> Callable[[], EngineTask[EvaluationResult]]:
        """Hands the queries at these places to the engine."""
        queries = [plan.queries[place] for place in asked]
        prompts = [plan.domain.question_prompt(query, plan.question_format) for query in queries]
        request = EvaluationRequest(
            run=plan.run,
            policy=adapters[0],
            adapter=adapters[1],
            prompts=tuple(prompts),
            golds=tuple(
                plan.domain.answer_completion(query.answers[0], plan.question_format)
                for query in queries
            ),
            max_tokens=plan.max_tokens,
            stop=tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
        )
        return lambda: self._engine.evaluate(request, on_progress=on_progress)


def _progress(
    state: common_pb2.TaskState.ValueType, done: int, plan: EvaluationPlan
) -> evaluator_pb2.EvaluateProgress:
    return evaluator_pb2.EvaluateProgress(
        state=state, queries_done=done, queries_total=len(plan.queries)
    )


def _leave_out(error: UnfitItem, asked: list[int], unfit: dict[int, Outcome]) -> None:
    """Note the queries at fault, so that the others are asked without them; or all of them."""
    places = [asked[place] for place in error.places] or list(asked)
    log.warning("query unfit", outcome=error.outcome.value, reason=str(error), queries=len(places))
    unfit.update(dict.fromkeys(places, error.outcome))
    asked[:] = [place for place in asked if place not in unfit]


def _result(
    plan: EvaluationPlan,
    asked: Sequence[int],
    evaluated: EvaluationResult | None,
    unfit: Mapping[int, Outcome],
) -> evaluator_pb2.EvaluationResult:
    """Grades, or the outcome of an evaluation that has none."""
    if evaluated is None:
        return without_grades(plan, unfit[0])
    outcome = adapter_outcome(evaluated, adapted=plan.adapter is not None)
    if outcome is not Outcome.OK:
        return without_grades(plan, outcome, evaluated)
    return grade_all(plan, asked, evaluated, unfit)
