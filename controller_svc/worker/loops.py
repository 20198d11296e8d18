"""One piece of work each: a baseline, one inner loop, the retained set.

Done, counted and committed. An outcome that is not a score is a result like any other: it is
recorded and not tried again, and nobody but its item pays for it. An error is not a result: it is
passed up and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from controller_svc.worker.asking import evaluate, evaluate_in_parts, fault_of_item
from controller_svc.worker.bench import Bench
from controller_svc.worker.requests import LoopKey
from seal.domains.base import Context, Example, Query
from seal.errors import InvalidInput, NotFound, Transient
from seal.outcomes import Outcome
from seal.records import (
    AdapterReference,
    EvaluationRecord,
    InnerLoopRecord,
    TrainingRecord,
)
from seal.runs.shards import Alone
from seal.runs.store import key_of
from seal.settings import OptimizerSettings

log = structlog.get_logger(__name__)


async def run_baseline(bench: Bench, context: Context) -> EvaluationRecord:
    """Ask the student alone; commit, for the whole run where all rounds have the same."""
    key = key_of(context.context_id)
    async with bench.places:
        request = bench.requests.baseline(context)
        record = await evaluate(bench, request, f"baseline/{key}")
        bench.meter.evaluating(f"baseline/{key}", queries=len(record.answers))
        return await _commit_baseline(bench, key, record)


async def _commit_baseline(bench: Bench, key: str, record: EvaluationRecord) -> EvaluationRecord:
    if bench.requests.one_baseline:
        record = await bench.files.commit_run_baseline(key, record)
    else:
        record = await bench.files.commit("baseline", key, record)
    await bench.clock.tick()
    return record


async def run_retained(bench: Bench, alone: Alone, queries: Sequence[Query]) -> EvaluationRecord:
    """Ask a model alone the whole retained set, in parts; commit."""
    record = await evaluate_in_parts(
        bench, queries, lambda part, some: bench.requests.retained_alone(alone, part, some)
    )
    return await bench.files.commit_retained(alone, record)


async def run_inner_loop(
    bench: Bench,
    key: LoopKey,
    context: Context,
    examples: Sequence[Example],
    retained: Sequence[Query],
    *,
    optimizer: OptimizerSettings | None = None,
    without_examples: Outcome = Outcome.INVALID,
) -> InnerLoopRecord:
    """Train a fresh adapter on the examples and ask the adapted model; commit.

    `optimizer`: how, if not as the run's inner loops. `without_examples`: the outcome where there
    is none.
    """
    async with bench.places:
        training, fault = (
            await _train(bench, key, examples, optimizer) if examples else (None, None)
        )
        evaluation = (
            await _ask(bench, key, training.adapter, context, retained)
            if training and training.adapter
            else (None, None)
        )
        record = await _commit(
            bench,
            key,
            fault or _outcome(training, evaluation[0], without_examples),
            training=training,
            evaluation=evaluation[0],
            retained=evaluation[1],
        )
    unasked = 0 if record.evaluation else len(context.queries) + len(retained)
    bench.meter.inner_loop_done(
        trainings_skipped=0 if record.training else 1, queries_skipped=unasked
    )
    return record


async def take_baseline(
    bench: Bench, key: LoopKey, baseline: EvaluationRecord, *, unasked: int
) -> InnerLoopRecord:
    """An edit that comes to no training has the answers of the student alone; commit.

    `unasked`: questions that are not asked for it.
    """
    evaluation = baseline.model_copy(update={"tokens": 0, "engine_seconds": 0.0})
    record = await _commit(bench, key, baseline.outcome, evaluation=evaluation)
    bench.meter.inner_loop_done(trainings_skipped=1, queries_skipped=unasked)
    return record


async def run_open_book(bench: Bench, key: LoopKey, context: Context) -> InnerLoopRecord:
    """Ask the base model with the passage in view; commit. Nothing is trained."""
    async with bench.places:
        request = bench.requests.open_book(key, context)
        evaluation = await evaluate(bench, request, request.request_id)
        record = await _commit(bench, key, evaluation.outcome, evaluation=evaluation)
    bench.meter.evaluating(request.request_id, queries=len(request.queries))
    return record


async def _commit(
    bench: Bench,
    key: LoopKey,
    outcome: Outcome,
    *,
    training: TrainingRecord | None = None,
    evaluation: EvaluationRecord | None,
    retained: EvaluationRecord | None = None,
) -> InnerLoopRecord:
    record = InnerLoopRecord(
        kind=key.kind,
        context_id=key.context_id,
        candidate=key.candidate,
        repeat=key.repeat,
        outcome=outcome,
        training=training,
        evaluation=evaluation,
        retained=retained,
    )
    record = await bench.files.commit("inner", key.file, record)
    await bench.clock.tick()
    return record


async def _train(
    bench: Bench, key: LoopKey, examples: Sequence[Example], optimizer: OptimizerSettings | None
) -> tuple[TrainingRecord | None, Outcome | None]:
    """The training, or the outcome of examples that no service takes.

    A refused setting is an error.
    """
    request = bench.requests.train(key, examples, optimizer)
    try:
        record = await bench.clients.trainer.train(
            request,
            lambda step, total: bench.meter.training(
                request.request_id, step=step, total_steps=total
            ),
        )
    except InvalidInput as error:
        if (outcome := fault_of_item(error, "examples")) is None:
            raise
        log.warning(
            "examples refused",
            context=key.context_id,
            kind=key.kind,
            candidate=key.candidate,
            field=error.field,
            reason=error.message,
        )
        return None, outcome
    bench.meter.trained(request.request_id, steps=record.steps)
    return record, None


async def _ask(
    bench: Bench,
    key: LoopKey,
    adapter: AdapterReference,
    context: Context,
    retained: Sequence[Query],
) -> tuple[EvaluationRecord, EvaluationRecord | None]:
    """The adapted model on the context's queries and on its share of the retained set.

    An adapter may go meanwhile: a ghost of this task that has committed the summary deletes it. The
    next attempt finds that summary, or has the adapter trained again.
    """
    try:
        return await _ask_adapted(bench, key, adapter, context, retained)
    except NotFound as error:
        if await bench.files.holds(adapter):
            raise
        raise Transient(
            f"adapter {adapter.sha256[:12]} was deleted before it was evaluated: {error.message}",
            remedy="run the task again",
        ) from error


async def _ask_adapted(
    bench: Bench,
    key: LoopKey,
    adapter: AdapterReference,
    context: Context,
    retained: Sequence[Query],
) -> tuple[EvaluationRecord, EvaluationRecord | None]:
    request = bench.requests.evaluate(key, adapter, context.queries)
    reward = await evaluate(bench, request, request.request_id)
    bench.meter.evaluating(request.request_id, queries=len(request.queries))
    if not retained or reward.outcome in NOT_ADAPTED:
        return reward, None
    again = bench.requests.retained(key, adapter, retained)
    kept = await evaluate(bench, again, again.request_id)
    bench.meter.evaluating(again.request_id, queries=len(again.queries))
    return reward, kept


NOT_ADAPTED = (Outcome.INERT, Outcome.DIVERGED, Outcome.REFUSED)
"""The adapted model itself is of no use: what it says of other passages means nothing."""


def _outcome(
    training: TrainingRecord | None,
    evaluation: EvaluationRecord | None,
    without_examples: Outcome,
) -> Outcome:
    """How the inner loop ended: where it stopped being valid."""
    if training is None:
        return without_examples
    if evaluation is None:
        return training.outcome
    return evaluation.outcome
