"""The engine's generation and scoring without its thread, queues and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seal.engine import evaluation as evaluation_module
from seal.engine.evaluation import Evaluation, nobody
from seal.engine.generation import Generation, GenerationBatch
from seal.engine.model import FrozenModel
from seal.engine.requests import (
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    GenerationResult,
)
from seal.errors import UnfitItem


def generate(
    model: FrozenModel,
    request: GenerationRequest,
    *,
    max_rows: int,
    cache_bytes: int | None = None,
) -> GenerationResult:
    """Sample every prompt's seeds, at most `max_rows` at once."""
    batch = GenerationBatch(model, request.policy, max_rows=max_rows)
    generation = Generation(model, request)
    batch.add(generation)
    while len(batch):
        batch.step(cache_bytes=cache_bytes)
    return generation.result()


def evaluate(
    model: FrozenModel,
    requests: Sequence[EvaluationRequest],
    *,
    max_rows: int,
    cache_bytes: int | None = None,
    cancelled: Callable[[int], bool] = nobody,
) -> list[EvaluationResult | UnfitItem]:
    """Answer and score the requests in one batch."""
    evaluations = [Evaluation(model, request) for request in requests]
    return evaluation_module.evaluate(
        model, evaluations, max_rows=max_rows, cache_bytes=cache_bytes, cancelled=cancelled
    )
