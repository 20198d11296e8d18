"""A training: a request tokenised and checked, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from seal.engine.model import FrozenModel
from seal.engine.order import StepOrder
from seal.engine.peft_format import Adapter
from seal.engine.requests import TaskState, TrainingProgress, TrainingRequest, TrainingResult
from seal.engine.text import TrainingRow
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.remedies import engine_setting


@dataclass
class TrainingJob:
    """One request, tokenised, and how far it is."""

    request: TrainingRequest
    rows: tuple[TrainingRow, ...]
    order: StepOrder
    """Rows of each step."""
    step: int = 0
    resumed_step: int = 0
    """Step of the checkpoint that it was resumed from; 0 without one."""
    tokens: int = 0
    engine_seconds: float = 0.0
    started: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Mean loss of each step."""
    outcome: Outcome | None = None
    """How it ended; None while it goes on."""

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return len(self.order)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per pass over the rows."""
        return self.order.steps_per_epoch

    def next_rows(self) -> list[TrainingRow]:
        """Rows of the next step."""
        return [self.rows[index] for index in self.order[self.step]]

    def progress(self) -> TrainingProgress:
        """News after a step."""
        elapsed = time.monotonic() - self.started
        eta = elapsed / self.step * (self.total_steps - self.step) if self.step else 0.0
        loss = self.losses[-1] if self.losses else float("nan")
        return TrainingProgress(
            TaskState.RUNNING,
            self.step,
            self.total_steps,
            loss,
            eta,
            self.resumed_step,
            self.tokens,
        )

    def result(self, outcome: Outcome, adapter: Adapter | None) -> TrainingResult:
        """The end of this job."""
        last_epoch = self.losses[-self.steps_per_epoch :]
        return TrainingResult(
            outcome=outcome,
            adapter=adapter,
            steps=self.step,
            final_loss=sum(last_epoch) / len(last_epoch) if last_epoch else float("nan"),
            tokens=self.tokens,
            seconds=time.monotonic() - self.started,
            engine_seconds=self.engine_seconds,
        )


def make_job(model: FrozenModel, request: TrainingRequest, *, max_row_tokens: int) -> TrainingJob:
    """Tokenise and check a request.

    Raises InvalidInput for no examples, an unknown target, a foreign policy or padding that no row
    may have; UnfitItem for a row that is too long for the engine or the model, or has no token to
    learn.
    """
    if not request.examples:
        raise InvalidInput(
            "a training needs at least one example",
            field="examples",
            remedy="give examples with a completion",
        )
    model.target_layers(request.lora.target_modules)
    if request.policy is not None:
        model.check_adapter(request.policy, field="policy")
    longest = min(max_row_tokens, model.positions or max_row_tokens)
    optimizer = request.optimizer
    if optimizer.pad_to_tokens > longest:
        raise InvalidInput(
            f"rows cannot be padded to {optimizer.pad_to_tokens} tokens: the longest row that "
            f"this engine trains has {longest}",
            field="optimizer.pad_to_tokens",
            remedy=f"pad to {longest} or less"
            + (
                f", or raise {engine_setting('max_row_tokens')}"
                if longest == max_row_tokens
                else ""
            ),
        )
    rows: list[TrainingRow] = []
    for index, (prompt, completion) in enumerate(request.examples):
        row = model.text.example(prompt, completion, pad_to_tokens=optimizer.pad_to_tokens)
        if row.length > longest:
            raise UnfitItem(
                f"example {index} has {row.length} tokens, the engine takes {longest}",
                outcome=Outcome.TOO_LONG,
                field=f"examples[{index}]",
                remedy="shorten or split the example",
            )
        if not (row.real and row.targets):
            raise UnfitItem(
                f"example {index} has no token to learn: the tokenizer makes none of its text",
                outcome=Outcome.INVALID,
                field=f"examples[{index}]",
                remedy="give it another completion, or drop the example",
            )
        rows.append(row)
    order = StepOrder(
        [row.length for row in rows],
        batch_size=optimizer.batch_size,
        epochs=optimizer.epochs,
        seed=request.order_seed,
    )
    return TrainingJob(request, tuple(rows), order)
