"""Single passages in the report: the edits with their fate, the questions with the answers."""

from __future__ import annotations

from typing import Literal

from seal.records import ExampleRecord, Record

Decision = Literal[
    "kept",
    "not-best",
    "eliminated",
    "preselected",
    "not-chosen",
    "no-credit",
    "no-gain",
    "all-equal",
    "invalid",
    "too_long",
    "inert",
    "diverged",
    "refused",
    "ungraded",
    "cancelled",
    "undecided",
]
"""What the selection did with an edit; `undecided` while there is no selection."""


class AnswerEntry(Record):
    """An answer of one model to one question."""

    answer: str
    right: float | None
    """By the measure that the domain marks answers by; None if it was not graded."""
    score: float | None


class QuestionEntry(Record):
    """One question and what the models said."""

    question: str
    golds: tuple[str, ...]
    answers: dict[str, AnswerEntry]
    """By the key of the row, or of the candidate (`before`, `candidate-0`, ...). First candidate
    and repeat that have an answer."""


Fate = Literal["used", "filtered", "abstained"]
"""What became of a part; `used`: a training example was parsed from it."""


class PartEntry(Record):
    """One part of a self-edit."""

    text: str
    """Its start and what the model wrote."""
    fate: Fate
    logprob: float | None
    """Mean log p of its tokens, nats."""
    learnt: bool
    """The next policy learns it."""
    credit: float | None
    """Of one that is learnt for itself, what it is held to have gained, queries."""


class PartGroup(Record):
    """Parts that were asked on the same text."""

    asked_on: str
    parts: tuple[PartEntry, ...]


class EditEntry(Record):
    """One self-edit."""

    candidate: int
    key: str
    """Key of its answers."""
    text: str
    groups: tuple[PartGroup, ...]
    """Its parts by what they were asked on; empty for an edit of one part."""
    examples: tuple[ExampleRecord, ...]
    """The first ones, where there are many; all are in `records.jsonl`."""
    examples_total: int
    tokens: int
    truncated: bool
    outcome: str
    """Ok if at least one repeat has a reward."""
    reward: float | None
    gain: float | None
    decision: Decision


class PassageEntry(Record):
    """One passage in detail."""

    context_id: str
    title: str
    text: str
    """Empty if the run's pinned passages cannot be read."""
    baseline: float | None
    """Reward of the student alone."""
    edits: tuple[EditEntry, ...]
    questions: tuple[QuestionEntry, ...]


class PassageGroup(Record):
    """Passages of one stage in detail; only the first ones of a large run."""

    round: int
    passages: tuple[PassageEntry, ...]
    passages_total: int
