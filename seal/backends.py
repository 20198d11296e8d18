"""What generator and evaluator stand on: something that writes texts and answers questions.

The engine is one such backend (`seal.engine.Engine`). Another one takes the same requests and gives
the same results, whatever computes them. What it can never do it refuses at once, by field and
remedy, as the engine does at its door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from seal.rpc.engine_calls import LivingEngine

if TYPE_CHECKING:
    from seal.bases import BaseReference
    from seal.engine import (
        EvaluationRequest,
        EvaluationResult,
        GenerationRequest,
        GenerationResult,
    )
    from seal.rpc.line import EngineTask


class Writer(LivingEngine, Protocol):
    """Writes texts: what GeneratorService needs.

    Of its settings the service reads `generation_rows`, by which it cuts a request, and
    `stall_seconds`.
    """

    holds_to_schema: bool
    """Whether it takes a JSON schema that every sample then conforms to."""

    @property
    def max_lora_rank(self) -> int:
        """Largest rank of one LoRA, an adapter together with its policy; 0 without such a bound."""

    def generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> EngineTask[GenerationResult]:
        """Queue a generation. `on_progress(samples done, tokens)` is called from any thread.

        So is, for a request of one sample, `on_text(text)`: with all of it that no later token
        changes, whenever that has grown, at last with the whole text of the result.

        Raises InvalidInput for what can never be written (naming the field), UnfitItem for an item
        that is at fault, Exhausted when the queue is full, Transient when it has stopped.
        """


class Answerer(LivingEngine, Protocol):
    """Answers questions and scores gold answers: what EvaluatorService needs."""

    @property
    def max_lora_rank(self) -> int:
        """As `Writer.max_lora_rank`."""

    def evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None = None
    ) -> EngineTask[EvaluationResult]:
        """Queue an evaluation. `on_progress(queries done)` is called from any thread.

        Raises as `Writer.generate`.
        """


class ModelWriter(Writer, Protocol):
    """A writer with its base model: what a process of a generator loads."""

    @property
    def base(self) -> BaseReference:
        """The base model as adapters name it."""

    def close(self) -> None:
        """Stop; what is unfinished ends with Transient."""


class TextBackend(ModelWriter, Answerer, Protocol):
    """Both, on one base model: what a process of a generator or an evaluator loads."""
