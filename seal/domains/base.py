"""What a domain is: it words prompts, makes training examples of edits and grades answers.

A domain is pure: text in, text out. It knows no model, no tokenizer and no service; the engine
renders its prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seal.prompts import Prompt
from seal.settings import ExampleSettings, GraderName, PromptFamily, PromptFormat, QuestionFormat


@dataclass(frozen=True)
class Query:
    """One held-out question."""

    query_id: str
    """Unique in the dataset."""
    question: str
    answers: tuple[str, ...]
    """Acceptable gold answers, at least one: the one that fits best counts. Trained on (upper
    bound) and scored by its log-probability is the first."""
    context: str = ""
    """Passage shown with the question (open book); empty for the question without context."""


@dataclass(frozen=True)
class Context:
    """What is to be learnt, with its held-out questions."""

    context_id: str
    title: str
    """May be empty."""
    text: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Example:
    """One training row.

    Loss is on the completion (and on the end of sequence that the engine adds).
    """

    prompt: str
    """May be empty: then the completion is a document."""
    completion: str


class Domain(Protocol):
    """Pure functions of one domain. `get_domain` gives it by name."""

    @property
    def name(self) -> str:
        """Name in `RunSpec.domain`."""

    def writes_edits(self, family: PromptFamily) -> bool:
        """False for a family without self-edits, which trains on the passage alone."""

    def edit_prompt(
        self, context_title: str, context_text: str, family: PromptFamily, format: PromptFormat
    ) -> Prompt:
        """Ask the policy for a self-edit. Raises InvalidInput for a family without self-edits."""

    def parse_edit(
        self,
        text: str,
        *,
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
    ) -> tuple[Example, ...]:
        """An edit's training examples, without the passage; empty if the edit is invalid.

        Never raises, whatever the text.
        """

    def passage_examples(
        self, title: str, text: str, settings: ExampleSettings
    ) -> tuple[Example, ...]:
        """The passage as training examples, `passage_repeats` times."""

    def gold_examples(
        self, context: Context, settings: ExampleSettings, question_format: QuestionFormat
    ) -> tuple[Example, ...]:
        """The gold question-answer pairs as training examples, never shown to the policy.

        They make the upper bound.
        """

    def question_prompt(self, query: Query, question_format: QuestionFormat) -> Prompt:
        """Ask a query; open book if it has a context."""

    def answer_completion(self, gold: str, question_format: QuestionFormat = "few-shot") -> str:
        """The string whose log-probability is scored after the question prompt."""

    def clean_answer(self, text: str) -> str:
        """The answer in what the model wrote, in one line."""

    def grade(
        self, grader: GraderName, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """Score of a clean answer by the gold answer that fits best; None if it cannot be graded.

        `logprob`: mean log p of the first gold answer, nats per token.
        """
