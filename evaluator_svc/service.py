"""EvaluatorService.

Questions by the domain, answers by the engine, grades by the domain, and proof that the adapter was
applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from evaluator_svc.grading import adapter_outcome, grade_all, without_grades
from evaluator_svc.judging import parse_rating, rating_result, the_judge, to_judge
from evaluator_svc.plan import EvaluationPlan, parse_evaluation
from evaluator_svc.views import asks_of, joined, unfit_queries
from seal.engine import EvaluationRequest, EvaluationResult
from seal.errors import UnfitItem
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_FROM_WIRE, base_reference
from seal.rpc.engine_calls import Newest, Pace, engine_call, sample, shows_life
from seal.rpc.line import Line
from seal.v1 import common_pb2, evaluator_pb2, evaluator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from evaluator_svc.judge import Judge
    from seal.adapters import AdapterCache
    from seal.backends import Answerer
    from seal.domains.base import Query
    from seal.engine import Adapter

log = structlog.get_logger(__name__)

Value = TypeVar("Value")


def register(
    server: grpc.aio.Server,
    *,
    engine: Answerer,
    adapters: AdapterCache,
    judge: Judge | None = None,
    pace: Pace | None = None,
) -> str:
    """Add the service to `server`; returns its full name for health checks."""
    service = EvaluatorService(engine=engine, adapters=adapters, judge=judge, pace=pace or Pace())
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(service, server)
    return evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Serves Evaluate, and what the judge alone is asked."""

    def __init__(
        self, *, engine: Answerer, adapters: AdapterCache, judge: Judge | None, pace: Pace
    ) -> None:
        self._engine, self._adapters, self._pace = engine, adapters, pace
        self._judge = judge
        self._line = Line("evaluate")

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        """Stream progress, then the graded result.

        What is the fault of a query (its prompt is too long) or of the adapter is an outcome.
        A cancelled call or a passed deadline stops the work; a retry does it again.
        """
        # Thousands of queries take seconds to check and to grade: health is answered meanwhile
        plan = await asyncio.to_thread(parse_evaluation, request)
        judge = (
            the_judge(self._judge, wanted=plan.judge, field="grader")
            if plan.grader == "judge"
            else None
        )
        self._adapters.check_base(plan.base)
        adapters = await self._fetch(plan)
        progress = Newest(_progress(common_pb2.TASK_STATE_QUEUED, 0, plan))
        asks = await asyncio.to_thread(asks_of, plan)

        def on_progress(done: int) -> None:
            queries = done * len(plan.queries) // len(asks)
            progress.set(_progress(common_pb2.TASK_STATE_RUNNING, queries, plan))

        asked, unfit = list(range(len(asks))), dict[int, Outcome]()
        evaluated: EvaluationResult | None = None
        while evaluated is None and asked:
            queries = [asks[ask].view.query for ask in asked]
            wanted = await asyncio.to_thread(_engine_request, plan, adapters, queries)
            try:
                async with engine_call(
                    partial(self._engine.evaluate, wanted, on_progress=on_progress),
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
        outcome = _outcome(plan, evaluated, unfit)
        places: Sequence[int] = ()
        left_out: Mapping[int, Outcome] = unfit_queries(asks, unfit)
        if evaluated is not None:
            answered = await asyncio.to_thread(joined, plan, asks, asked, evaluated, unfit)
            places, evaluated, left_out = answered.places, answered.evaluated, answered.unfit
        verdicts: Sequence[float | None] = ()
        if judge is not None and evaluated is not None and outcome is Outcome.OK:
            answers = await asyncio.to_thread(to_judge, plan, places, evaluated)
            async with _owned(judge.grades(answers, lambda _: None)) as judged:
                async for news in sample(progress, judged, pace=self._pace):
                    yield evaluator_pb2.EvaluateResponse(progress=news)
                verdicts = judged.result()
        result = (
            without_grades(plan, outcome, left_out, evaluated)
            if evaluated is None or outcome is not Outcome.OK
            else await asyncio.to_thread(grade_all, plan, places, evaluated, left_out, verdicts)
        )
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

    async def RateEdits(
        self, request: evaluator_pb2.RateEditsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[evaluator_pb2.RateEditsResponse]:
        """Stream progress, then what the judge's model says of the edits.

        A cancelled call or a passed deadline stops the work; a retry does it again.
        """
        judge = the_judge(self._judge, wanted=request.judge, field="")
        edits = parse_rating(request)
        progress = Newest(_rated(0, len(edits)))
        rating = judge.ratings(edits, lambda done: progress.set(_rated(done, len(edits))))
        async with _owned(rating) as rated:
            async for news in sample(progress, rated, pace=self._pace):
                yield evaluator_pb2.RateEditsResponse(progress=news)
            result = rating_result(request, rated.result())
        log.info(
            "edits rated",
            run=request.run,
            request_id=request.request_id,
            edits=len(edits),
            unrated=sum(each.outcome != common_pb2.OUTCOME_OK for each in result.ratings),
        )
        yield evaluator_pb2.RateEditsResponse(result=result)

    async def DescribeJudge(
        self,
        request: evaluator_pb2.DescribeJudgeRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> evaluator_pb2.DescribeJudgeResponse:
        """Say which model judges, once a new verdict has proved that it does."""
        judge = the_judge(self._judge, wanted="", field="")
        await judge.check()
        return evaluator_pb2.DescribeJudgeResponse(model=judge.model)

    async def DescribeEvaluator(
        self,
        request: evaluator_pb2.DescribeEvaluatorRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> evaluator_pb2.DescribeEvaluatorResponse:
        """What the loaded base model can be asked with, if it is the one that the caller means."""
        self._adapters.check_base(base_reference(request.policy))
        return evaluator_pb2.DescribeEvaluatorResponse(max_rank=self._engine.max_lora_rank)

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


def _engine_request(
    plan: EvaluationPlan,
    adapters: tuple[Adapter | None, Adapter | None],
    queries: Sequence[Query],
) -> EvaluationRequest:
    """Queries as the engine is asked them."""
    prompts = [plan.domain.question_prompt(query, plan.question_format) for query in queries]
    return EvaluationRequest(
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


@asynccontextmanager
async def _owned(work: Coroutine[Any, Any, Value]) -> AsyncIterator[asyncio.Task[Value]]:
    """A task that ends with the block: who leaves early stops the work."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


def _rated(done: int, total: int) -> evaluator_pb2.EvaluateProgress:
    return evaluator_pb2.EvaluateProgress(
        state=common_pb2.TASK_STATE_RUNNING, queries_done=done, queries_total=total
    )


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


def _outcome(
    plan: EvaluationPlan, evaluated: EvaluationResult | None, unfit: dict[int, Outcome]
) -> Outcome:
    """Whether there is something to grade, or why not."""
    if evaluated is None:  # what was found last left nothing to ask
        return next(reversed(unfit.values()))
    return adapter_outcome(evaluated, adapted=plan.adapter is not None)
