"""What a domain is: it words prompts, makes training examples of edits and grades answers.

A domain is pure: text in, text out. It knows no model, no tokenizer and no service; the engine
renders its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from seal.prompts import Prompt
from seal.settings import ExampleSettings, PromptFamily, PromptFormat, QuestionFormat, TextGrader


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


ABSTAIN = " -"
"""What a policy writes after the start of a part that does not fit: it parses to nothing."""


@dataclass(frozen=True)
class PartPrompt:
    """What the policy is asked for one part of an edit.

    An edit is the union of its parts. A context has the same part prompts for all its candidates;
    each candidate has one text for each of them.
    """

    prompt: Prompt
    """Worked examples included, where the policy needs them."""
    start: str = ""
    """Words written for the model, after the prompt and no part of it: its text follows them
    directly."""


@dataclass(frozen=True)
class PartExample:
    """One training row of an edit, and where in the edit it comes from."""

    part: int
    """Index of the part that it was parsed from."""
    example: Example
    """What the inner loop trains on."""
    question: str = ""
    """Of a question-answer pair, in one line; empty for a statement."""
    answer: str = ""
    """Of a question-answer pair, in one line; empty for a statement."""


class Domain(Protocol):
    """Pure functions of one domain. `get_domain` gives it by name."""

    @property
    def name(self) -> str:
        """Name in `RunSpec.domain`."""

    def writes_edits(self, family: PromptFamily) -> bool:
        """False for a family without self-edits, which trains on the passage alone."""

    def edit_prompts(
        self,
        title: str,
        text: str,
        family: PromptFamily,
        format: PromptFormat,
        *,
        trained: bool = False,
    ) -> tuple[PartPrompt, ...]:
        """Ask the policy for the parts of a self-edit, at least one.

        `trained`: for a policy that has learnt to write parts; without worked examples where the
        family has many parts. Raises InvalidInput for a family without self-edits.
        """

    def parse_parts(
        self,
        texts: Sequence[str],
        *,
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
    ) -> tuple[PartExample, ...]:
        """An edit's training examples, without the passage; empty if the edit is invalid.

        `texts[i]` is part i: its start and what the model wrote. Never raises, whatever the texts.
        """

    def gold_parts(
        self, context: Context, family: PromptFamily, format: PromptFormat
    ) -> tuple[tuple[PartPrompt, str], ...]:
        """The context's gold pairs as the policy should have written them, for supervision.

        Each is a prompt as a trained policy gets it, and what should follow its start. Empty for a
        family that writes no questions.
        """

    def affinity(self, question: str, answer: str, query: Query, *, title: str) -> float:
        """How far a pair of an edit can serve a query, 0 to 1. Never looks at gold answers."""

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
        self, grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """Score of a clean answer by the gold answer that fits best; None if it cannot be graded.

        `logprob`: mean log p of the first gold answer, nats per token.
        """
