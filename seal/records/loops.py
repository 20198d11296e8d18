"""Inner loops: trainings and graded answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from seal.outcomes import Outcome
from seal.records.base import AdapterReference, Record


class AnswerRecord(Record):
    """One graded answer."""

    query_id: str
    question: str
    golds: tuple[str, ...]
    """Acceptable answers; the one that fits best counts."""
    answer: str
    outcome: Outcome
    score: float | None
    """Score by the run's grader; None unless the outcome is ok."""
    measures: Mapping[str, float]
    """What the domain measures every answer by, by name, 0 to 1."""
    logprob: float
    """Mean log p of the first gold answer, nats per token."""


class EvaluationRecord(Record):
    """One Evaluate call."""

    outcome: Outcome
    reward: float | None
    """Mean score over the graded answers."""
    answers: tuple[AnswerRecord, ...]
    ungraded: int
    max_logit_difference: float
    tokens: int
    engine_seconds: float


class TrainingRecord(Record):
    """One TrainAdapter call."""

    outcome: Outcome
    adapter: AdapterReference | None
    steps: int
    final_loss: float
    """Mean loss over the last epoch, nats per target token."""
    tokens: int
    seconds: float
    engine_seconds: float


InnerLoopKind = Literal[
    "edit",
    "passage",
    "passage-equal-steps",
    "gold",
    "open-book",
    "fixed-edit",
    "oracle-edit",
]
"""What the adapter was trained on: a self-edit (with the passage), the passage alone, the passage
with as many optimiser steps as the context's first edit has, the gold question-answer pairs, or an
edit that the settings give. For `open-book` nothing is trained: the passage stands before the
questions."""


class InnerLoopRecord(Record):
    """One adapter, trained and evaluated."""

    kind: InnerLoopKind
    context_id: str
    candidate: int
    """Index of the edit among the context's k; 0 for the bounds."""
    repeat: int
    outcome: Outcome
    training: TrainingRecord | None
    """None if there was nothing to train on, or nothing is trained."""
    evaluation: EvaluationRecord | None
    retained: EvaluationRecord | None
    """Open-book questions on other passages, asked of the adapted model (validation only)."""
