"""Self-edits, as the policy wrote them and as the domain parsed them."""

from __future__ import annotations

from collections.abc import Sequence

from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord, PartPrompts
from seal.records.base import Record


class ExampleRecord(Record):
    """One training example."""

    prompt: str
    completion: str
    part: int = 0
    """Index of the edit's part that it was parsed from."""
    question: str = ""
    """Of a question-answer pair, in one line; empty for a statement."""
    answer: str = ""
    """Of a question-answer pair; empty for a statement."""


class PartRecord(Record):
    """What the policy wrote for one part of an edit."""

    text: str
    """Without the start of its prompt."""
    tokens: int
    """Sampled tokens."""
    truncated: bool
    """True if the bound of new tokens cut it off."""
    logprob: float | None = None
    """Mean log p of the sampled tokens at temperature 1, nats; None without one."""


class OptimizerChoice(Record):
    """How an edit wants to be trained on, in place of what the run's inner loops have."""

    learning_rate: float
    """Peak learning rate."""
    epochs: int
    """Passes over its examples."""


class EditRecord(Record):
    """One self-edit as the policy wrote it and as the domain parsed it."""

    context_id: str
    candidate: int
    seed: int
    parts: tuple[PartRecord, ...]
    """One per part prompt of its context; empty if the context has no edits."""
    examples: tuple[ExampleRecord, ...]
    """Parsed from the edit, without the passage; empty means outcome `invalid`."""
    optimizer: OptimizerChoice | None = None
    """None where the edit says nothing of it."""

    @property
    def tokens(self) -> int:
        """Sampled tokens of all parts."""
        return sum(part.tokens for part in self.parts)

    @property
    def truncated(self) -> bool:
        """True if most parts were cut off: the only one, or more than half."""
        return 2 * sum(part.truncated for part in self.parts) > len(self.parts)


def part_texts(prompts: Sequence[PartPromptRecord], edit: EditRecord) -> tuple[str, ...]:
    """The whole text of each part: the start that was written for the model, and its own words.

    None for an edit that was not written.
    """
    if not edit.parts:
        return ()
    return tuple(prompt.start + part.text for prompt, part in zip(prompts, edit.parts, strict=True))


def edit_text(prompts: Sequence[PartPromptRecord], edit: EditRecord) -> str:
    """The text of an edit: its parts, each on a line of its own."""
    return "\n".join(part_texts(prompts, edit))


class ContextEditsRecord(Record):
    """The k edits of one context, committed as soon as they are written.

    A restart trains the same edits.
    """

    context_id: str
    parts: PartPrompts
    """How each part was asked for, as in `ContextRecord`."""
    edits: tuple[EditRecord, ...]
    engine_seconds: float
    """This context's share of the engine's time."""
    outcome: Outcome = Outcome.OK
    """Why the context has no edits, if it has none: its k edits are empty then and not at fault."""


class RatingsRecord(Record):
    """How good the k edits of one context look by the rubric, where it chooses among them."""

    context_id: str
    ratings: tuple[float | None, ...]
    """From 0 to 1, by candidate; None where there is none."""
