"""What a domain is: it words prompts, makes training examples of edits and grades answers.

A domain is pure: text in, text out. It knows no model, no tokenizer and no service; the engine
renders its prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from seal.dataset_rows import Place
from seal.prompts import Prompt
from seal.settings import (
    DomainName,
    DomainOptions,
    ExampleSettings,
    OptimizerSettings,
    PromptFamily,
    PromptFormat,
    QuestionFormat,
    TextGrader,
)


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
    """What is shown with the question: the passage (open book), or the demonstrations of a task;
    empty for the question without context."""


@dataclass(frozen=True)
class Context:
    """What is to be learnt, with its held-out questions."""

    context_id: str
    title: str
    """May be empty."""
    text: str
    """A passage; a task's demonstrations as JSON. An edit is written on it."""
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


@dataclass(frozen=True)
class LoadedContexts:
    """What a file holds, and what of it was not taken."""

    contexts: tuple[Context, ...]
    unanswerable: int = 0
    """Questions left out: they have no answer."""
    emptied: int = 0
    """Contexts left out: none of their questions has an answer."""


@dataclass(frozen=True)
class Measure:
    """What every answer is measured by, whatever it is rewarded by: a share, 0 to 1."""

    name: str
    """On the wire and in records; that of the grader of the same kind, if there is one."""
    label: str
    """Short, for what is shown side by side."""
    accuracy: str
    """What a mean of it is called where it is the only one, such as the reward."""
    means: str
    """What it says of an answer, to go on from "is"."""
    gloss: str
    """What a mean of it is, as an entry of a glossary."""
    is_success: bool = False
    """An answer is right or wrong by it, and how many are is what is reported: its intervals are
    those of a share."""


@dataclass(frozen=True)
class View:
    """A query asked in another way: whoever can answer one can answer the other."""

    query: Query
    undo: Callable[[str], str]
    """From a clean answer to this view to one to the query itself; empty where there is none."""


@dataclass(frozen=True)
class DomainWords:
    """What a domain's contexts and results are called where people read of them."""

    context: str
    """One context; its plural has an s."""
    right: str
    """The measure by which an answer is marked right or wrong."""
    shapes: str
    """What its data files may hold, to end a sentence without its full stop."""
    story: str
    """What a run does with `{contexts}`, of which it asks `{questions}`, for somebody who has not
    read the paper."""
    story_without_edits: str
    """The same of a run that measures no edits."""
    glossary: tuple[tuple[str, str], ...]
    """Words of its own with what they mean."""
    measured: str
    """What the measures of the result picture say, in sentences."""
    read_together: str
    """How they are read beside one another, in sentences."""
    rows: Mapping[str, str]
    """Names of the rows of the result table by their kind (`seal.records.InnerLoopKind`, and `base`
    for the model before any training); in that of `edit` stands `{round}`, and `edit-0` may have a
    name of its own."""
    short_rows: Mapping[str, str]
    """The same in a few words, where `edit` is `round N`."""
    reference: str
    """What the edits are compared with, in a few words."""
    bounds: Mapping[str, str]
    """What each kind that is measured beside the edits is, in a sentence without its end."""


class Domain(Protocol):
    """Pure functions of one domain. `get_domain` gives it by name."""

    @property
    def name(self) -> DomainName:
        """Name in `RunSpec.domain`."""

    @property
    def options(self) -> DomainOptions:
        """Which families, question formats, graders and bounds belong to it."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What answers are measured by; the first decides where one has to."""

    @property
    def words(self) -> DomainWords:
        """What its contexts and results are called."""

    def answers_file(self, name: str) -> str | None:
        """Name of the file with gold answers that may lie beside a data file; None for none."""

    def read(
        self,
        values: Iterable[tuple[Place, object]],
        *,
        source: str,
        answers: object = None,
    ) -> LoadedContexts:
        """The contexts in a data file's JSON values, each with its place.

        `source` is the file's name for messages, `answers` the whole value of its `answers_file`,
        if that lies there. Raises InvalidInput for the first thing amiss, and where there is no
        context.
        """

    def digest(self, text: str) -> str:
        """sha256 of what a context's text holds: the same for two that only look different."""

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
        seed: int,
    ) -> tuple[PartExample, ...]:
        """An edit's training examples, without the passage; empty if the edit is invalid.

        `texts[i]` is part i: its start and what the model wrote. `seed` is that of whatever is
        drawn, and the same for all edits of a context. Never raises, whatever the texts.
        """

    def optimizer(self, texts: Sequence[str], base: OptimizerSettings) -> OptimizerSettings:
        """How an edit wants to be trained on: `base`, or with the rate and epochs of the edit.

        Only asked of an edit that `parse_parts` finds examples in.
        """

    def choices(self, texts: Sequence[str]) -> Mapping[str, str]:
        """What an edit chose among few possibilities, by name; empty for free text, or for none."""

    def edit_schema(self, family: PromptFamily, format: PromptFormat) -> str | None:
        """JSON schema of an edit in the form that the prompts ask for; None for free text.

        For a decoder that can hold a model to it.
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

    def single_tokens(self, question_format: QuestionFormat) -> tuple[str, ...]:
        """Texts that have to be one token each, however often they are repeated; mostly none."""

    def clean_answer(self, text: str, question_format: QuestionFormat) -> str:
        """The answer in what the model wrote, in one line; cleaned again it stays the same."""

    def views(self, query: Query, votes: int, *, seed: int) -> tuple[View, ...]:
        """A query in `votes` ways or fewer, the query itself first."""

    def vote(self, answers: Sequence[str]) -> str:
        """What the clean answers to a query's views, undone, agree on; the first of equals."""

    def grade(
        self, grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """Score of a clean answer by the gold answer that fits best; None if it cannot be graded.

        `logprob`: mean log p of the first gold answer, nats per token.
        """

    def measure(self, answer: str, golds: tuple[str, ...]) -> Mapping[str, float]:
        """Every measure of a clean answer, by name; 0 where there is nothing to compare."""
