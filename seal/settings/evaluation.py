"""How adapted models are asked and graded, and how a policy is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seal.limits import MAX_ANSWER_TOKENS, MAX_EDIT_CHARACTERS, MAX_VOTES
from seal.settings.base import FileSettings
from seal.settings.training import OptimizerSettings

QuestionFormat = Literal["few-shot", "reading", "plain", "chat", "digits", "letters", "spaced"]
TextGrader = Literal["exact", "contains", "f1", "grid", "logprob"]
"""Graders that a program is: each answer has all of these grades, whatever it is rewarded by."""
GraderName = Literal["exact", "contains", "f1", "grid", "logprob", "judge"]
"""What a reward can be: one of these, or the verdict of a model."""


class EvaluationSettings(FileSettings):
    """How an adapted model is asked and graded."""

    question_format: QuestionFormat = "plain"
    """Question prompt; `few-shot` carries three fixed, unrelated question-answer pairs so that
    format is not counted as knowledge; `reading` is the same, but for questions that are asked with
    their passage the pairs have passages too."""
    grader: GraderName = "contains"
    """What the reward is the mean of. `judge`: a model at the evaluator's endpoint says whether an
    answer is right; one that it does not say of has no grade."""
    max_tokens: int = Field(default=64, ge=1, le=MAX_ANSWER_TOKENS)
    """Upper bound of new tokens per answer."""
    votes: int = Field(default=1, ge=1, le=MAX_VOTES)
    """Ways in which each question is asked (`arc`, grader `grid`): the answer that most of them
    agree on is graded, so that it takes three to outvote one. Each costs as much as a question of
    its own."""


class ValidationSettings(FileSettings):
    """Measuring a policy on held-out contexts."""

    edits_per_context: int = Field(default=1, ge=1, le=1024)
    """Edits sampled per validation context; the context's score is their mean."""
    empty_edit: Literal["invalid", "passage", "baseline"] = "invalid"
    """An edit without training examples: `invalid` has no score. What it comes to for one who
    adapts with the policy is another thing: `passage` trains on the passage alone, `baseline`
    (`arc`) trains nothing and takes the baseline's answers. No effect on rollouts."""
    passage: OptimizerSettings | None = None
    """How the bound of the passage alone is trained, where it has a best rate and best epochs of
    its own; none trains it as the edits, with `inner.optimizer`."""
    equal_steps: bool = False
    """Also train on the passage alone, once, with the rate of the edits and as many optimiser steps
    as the context's first edit has: one row takes few steps where an edit takes many."""
    open_book: bool = False
    """Also ask the base model with the passage before the question: the ceiling of reading, where
    nothing is trained."""
    gold_bound: bool = False
    """Also train on the gold question-answer pairs, once: the upper bound. Never shown to the
    policy."""
    fixed_edit: str = Field(default="", max_length=MAX_EDIT_CHARACTERS)
    """Also train on this edit, the same for every context: what settings made by hand come to
    (`arc`). Empty: not measured."""
    oracle_edit: str = Field(default="", max_length=MAX_EDIT_CHARACTERS)
    """Also train on this edit: the best that a search over the training contexts has found (`arc`).
    Empty: not measured."""
    retained_queries: int = Field(default=4, ge=0, le=1000)
    """Open-book questions of the retained set asked of every adapted model, to measure
    forgetting."""
