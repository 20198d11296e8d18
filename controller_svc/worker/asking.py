"""A model is asked questions: in one request, or in as many as the settings ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from controller_svc.worker.bench import Bench
from seal.domains.base import Query
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.records import AdapterReference, EvaluationRecord
from seal.v1 import evaluator_pb2

log = structlog.get_logger(__name__)


async def ask_in_parts(
    bench: Bench, name: str, adapter: AdapterReference | None, queries: Sequence[Query]
) -> EvaluationRecord:
    """Ask the base model, or an adapter on it, some questions, at least one, in parts."""
    return await evaluate_in_parts(
        bench, queries, lambda part, some: bench.requests.ask(name, part, adapter, some)
    )


async def evaluate_in_parts(
    bench: Bench,
    queries: Sequence[Query],
    request_of: Callable[[int, Sequence[Query]], evaluator_pb2.EvaluateRequest],
) -> EvaluationRecord:
    """One evaluation in as many requests as the settings ask for."""
    size = bench.settings.queries_per_request
    parts = [queries[start : start + size] for start in range(0, len(queries), size)]

    async def ask(part: int) -> EvaluationRecord:
        async with bench.places:
            request = request_of(part, parts[part])
            record = await evaluate(bench, request, request.request_id)
            bench.meter.evaluating(request.request_id, queries=len(parts[part]))
            return record

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(part)) for part in range(len(parts))]
    return join_evaluations([task.result() for task in asked])


def join_evaluations(parts: Sequence[EvaluationRecord]) -> EvaluationRecord:
    """Several evaluations of one model as one."""
    answers = tuple(answer for part in parts for answer in part.answers)
    scores = [answer.score for answer in answers if answer.score is not None]
    faults = [part.outcome for part in parts if part.outcome is not Outcome.OK]
    return EvaluationRecord(
        outcome=Outcome.OK if scores else [*faults, Outcome.UNGRADED][0],
        reward=sum(scores) / len(scores) if scores else None,
        answers=answers,
        ungraded=sum(part.ungraded for part in parts),
        max_logit_difference=max(part.max_logit_difference for part in parts),
        tokens=sum(part.tokens for part in parts),
        engine_seconds=sum(part.engine_seconds for part in parts),
    )


async def evaluate(
    bench: Bench, request: evaluator_pb2.EvaluateRequest, key: str
) -> EvaluationRecord:
    """One evaluation; queries that no service takes have no answers, and their outcome says why."""
    try:
        return await bench.clients.evaluator.evaluate(
            request, lambda done: bench.meter.evaluating(key, queries=done)
        )
    except InvalidInput as error:
        if (outcome := fault_of_item(error, "queries")) is None:
            raise
        log.warning("queries refused", request=request.request_id, reason=error.message)
        return EvaluationRecord(
            outcome=outcome,
            reward=None,
            answers=(),
            ungraded=len(request.queries),
            max_logit_difference=0.0,
            tokens=0,
            engine_seconds=0.0,
        )


def fault_of_item(error: InvalidInput, items: str) -> Outcome | None:
    """The outcome of the item whose own content a refusal is about; None for any other refusal.

    `items`: the request's field that holds them. What stands in it was made by the model or read
    from the data and has passed their bounds, so that only its size can be refused.
    """
    if isinstance(error, UnfitItem):
        return error.outcome
    return Outcome.TOO_LONG if error.field.startswith(items) else None
