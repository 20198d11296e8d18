"""Parts (e) and (g): decoding for many adapters, and the inner loops of a whole round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import TypeVar

from benchmarks.cuda.bench import Bench
from benchmarks.cuda.models import inner_loop, questions, random_adapter
from benchmarks.cuda.plan import INNER, Plan
from benchmarks.cuda.report import Line
from seal.engine import Engine, EngineTask, EvaluationResult, TrainingResult
from seal.engine.evaluation import Evaluation, evaluate
from seal.engine.memory import position_bytes
from seal.engine.model import FrozenModel
from seal.errors import UnfitItem
from seal.settings import EngineSettings

ROUND_SLOTS = 32
Result = TypeVar("Result")


def measure_decoding(bench: Bench) -> Iterator[Line]:
    """Greedy answers of one length to a few questions of each adapter, all in one batch."""
    plan, model = bench.plan, bench.model(bench.plan.large)
    _decode(bench, model, 1, answer_tokens=2)
    for count in plan.slots:
        bench.check_time(f"{count} adapters", seconds=5)
        seconds, tokens = _decode(bench, model, count, answer_tokens=plan.answer_tokens)
        positions = count * plan.questions * (plan.prompt_tokens + plan.answer_tokens)
        cache = positions * position_bytes(model.size)
        step = 1e3 * (model.size.base_bytes + cache) / bench.copy_bytes_per_second
        yield Line(
            name=f"{count} adapters: a token of all {count * plan.questions} rows",
            value=1e3 * seconds / plan.answer_tokens,
            unit="ms",
            arithmetic=f"{step:.1f} ms to read the weights and the cache once; measured with "
            "prompts, scoring and the stacking of adapters",
        )
        yield Line(
            name=f"{count} adapters: an adapter's {plan.questions} answers",
            value=seconds / count,
            unit="s",
            arithmetic=f"{tokens} tokens in all, {tokens / seconds:.0f} tokens/s",
        )


def _decode(
    bench: Bench, model: FrozenModel, adapters: int, *, answer_tokens: int
) -> tuple[float, int]:
    """Seconds, and tokens written."""
    plan = bench.plan
    evaluations = [
        Evaluation(
            model,
            questions(
                random_adapter(model, INNER, seed=seed),
                count=plan.questions,
                prompt_tokens=plan.prompt_tokens,
                answer_tokens=answer_tokens,
                seed=seed,
            ),
        )
        for seed in range(adapters)
    ]
    bench.wait()
    started = time.perf_counter()
    results = evaluate(model, evaluations, max_rows=EngineSettings().evaluation_rows)
    seconds = time.perf_counter() - started
    tokens = 0
    for result in results:
        if isinstance(result, UnfitItem):
            raise result
        tokens += result.tokens
    return seconds, tokens


def measure_round(bench: Bench) -> Iterator[Line]:
    """Train every edit of a round and answer its questions, through the engine as services do."""
    plan, model = bench.plan, bench.model(bench.plan.small)
    settings = EngineSettings(slots=ROUND_SLOTS, device=plan.device, max_queue=100_000)
    engine = Engine(model, settings)
    try:
        yield from _round(bench, engine, plan)
    finally:
        engine.close()


def _round(bench: Bench, engine: Engine, plan: Plan) -> Iterator[Line]:
    edits = plan.contexts * plan.candidates
    started = time.perf_counter()
    trainings = [
        engine.train(
            inner_loop(
                plan.edits[index % len(plan.edits)],
                seed=100 * index,
                lora=INNER,
                epochs=plan.epochs,
            )
        )
        for index in range(edits)
    ]
    evaluations: list[EngineTask[EvaluationResult]] = []
    trained, tokens = 0, 0
    with suppress(FutureTimeout):
        for index, training in enumerate(trainings):
            result: TrainingResult = _within(bench, training.future)
            trained, tokens = trained + 1, tokens + result.tokens
            request = questions(
                result.adapter,
                count=plan.questions,
                prompt_tokens=plan.prompt_tokens,
                answer_tokens=plan.answer_tokens,
                seed=index,
            )
            evaluations.append(engine.evaluate(request))
        for evaluation in evaluations:
            _within(bench, evaluation.future)
    scored = sum(
        evaluation.future.done() and evaluation.future.exception() is None
        for evaluation in evaluations
    )
    seconds = time.perf_counter() - started
    if scored < edits:
        for training in trainings:
            training.cancel()
        for evaluation in evaluations:
            evaluation.cancel()
        yield Line(
            name=f"inner loops of {edits} that were done when the part's time was spent",
            value=trained,
            arithmetic=f"{scored} of them scored, {seconds:.0f} s",
        )
        return
    yield Line(
        name=f"inner loops of a round, {plan.contexts} contexts x {plan.candidates} edits",
        value=seconds,
        unit="s",
        arithmetic=f"{ROUND_SLOTS} slots, {plan.epochs} epochs, {plan.questions} questions each",
    )
    yield Line(
        name="one of them",
        value=seconds / edits,
        unit="s",
        arithmetic=f"{tokens} tokens trained, {tokens / seconds:.0f} tokens/s",
    )


def _within(bench: Bench, future: Future[Result]) -> Result:
    return future.result(max(0.0, bench.deadline - time.monotonic()))
