"""What is asked of a request before it waits: whether its adapters and its rows can ever be served.

A request that came in cannot hurt others any more: what it takes is known by its tokens, and it is
checked against the model's positions and the engine's memory before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator

from seal.engine.budget import MemoryBudget, RowLength
from seal.engine.evaluation import Evaluation
from seal.engine.generation import Generation
from seal.engine.items import each
from seal.engine.model import FrozenModel
from seal.engine.peft_format import Adapter
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome


def check_adapter(model: FrozenModel, adapter: Adapter, *, field: str) -> None:
    """Raise UnfitItem for an adapter of no rank, InvalidInput for one that is not of this model."""
    model.check_adapter(adapter, field=field)
    if adapter.rank < 1:
        raise UnfitItem(
            f"the adapter has rank {adapter.rank}",
            outcome=Outcome.REFUSED,
            field=field,
            remedy="use an adapter of rank 1 or more",
        )


def check_generation(model: FrozenModel, budget: MemoryBudget, generation: Generation) -> None:
    """Raise UnfitItem for a prompt that cannot be continued.

    InvalidInput for too many tokens, or a schema: the engine has no structured decoding.
    """
    if generation.request.json_schema:
        raise InvalidInput(
            "the engine has no structured decoding",
            field="json_schema",
            remedy="leave it out, or call a generator with --backend vllm",
        )
    tokens = generation.request.max_tokens
    _check_max_tokens(model, tokens)
    _check_rows(
        model,
        budget,
        (
            RowLength(f"prompts[{index}]", len(prompt), len(prompt) + tokens)
            for index, prompt in enumerate(generation.prompts)
        ),
    )


def check_evaluation(model: FrozenModel, budget: MemoryBudget, evaluation: Evaluation) -> None:
    """Raise UnfitItem for a question that cannot be answered, InvalidInput for too many tokens."""
    tokens = evaluation.request.max_tokens
    _check_max_tokens(model, tokens)
    rows = zip(evaluation.prompts, evaluation.golds, strict=True)
    _check_rows(
        model,
        budget,
        (
            RowLength(f"prompts[{index}]", len(prompt), len(prompt) + max(tokens, len(gold)))
            for index, (prompt, gold) in enumerate(rows)
        ),
    )


def _check_max_tokens(model: FrozenModel, tokens: int) -> None:
    if model.positions is not None and tokens >= model.positions:
        raise InvalidInput(
            f"{tokens} tokens cannot follow a prompt: the model has {model.positions} positions",
            field="max_tokens",
            remedy=f"ask for fewer than {model.positions} tokens",
        )


def _check_rows(model: FrozenModel, budget: MemoryBudget, rows: Iterator[RowLength]) -> None:
    def check(row: RowLength) -> None:
        if model.positions is not None and row.positions > model.positions:
            raise UnfitItem(
                f"{row.field} has {row.prompt} tokens and {row.positions - row.prompt} more may "
                f"follow, the model has {model.positions} positions",
                outcome=Outcome.TOO_LONG,
                field=row.field,
                remedy="shorten it, or ask for fewer tokens",
            )
        budget.check_decoded(row)

    each("prompts", rows, check)
