r"""How the parts of an edit were asked for, as records hold it: what prompts share is written once.

A context's edits have dozens of part prompts, and nearly all of each stands in the one before it:
the worked examples, the title, often the sentence too. Written whole they would be most of what a
run leaves in the store. So of each prompt a file holds what it does not share with the one before:

    {"prompt": "Text: It burnt.\\n", "start": "Who"}, {"same": 16, "prompt": "", "start": "When"}

In memory each prompt is whole, and what is equal is there once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer

from seal.prompts import Message


class _Asked(BaseModel):
    """Base of both forms: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str
    """The whole prompt or, with `messages`, how the model's turn starts; without `start`."""
    messages: tuple[Message, ...] = ()
    """Turns of a chat prompt; empty for a raw one."""
    start: str = ""
    """Words that were written for the model and belong to its text, which follows directly."""


class PartPromptRecord(_Asked):
    """How one part of a context's edits was asked for."""


class _Written(_Asked):
    """The same in a file: `prompt` and `messages` go on where they leave the prompt before."""

    same: int = Field(default=0, ge=0)
    """Characters that the prompt before begins with too."""
    same_turns: int = Field(default=0, ge=0)
    """Turns likewise."""


def _folded(parts: Sequence[PartPromptRecord]) -> list[dict[str, JsonValue]]:
    rows, prompt, turns = [], "", tuple[Message, ...]()
    for part in parts:
        same, same_turns = _shared(prompt, part.prompt), _shared(turns, part.messages)
        written = _Written(
            prompt=part.prompt[same:],
            messages=part.messages[same_turns:],
            start=part.start,
            same=same,
            same_turns=same_turns,
        )
        rows.append(written.model_dump(mode="json", exclude_defaults=True))
        prompt, turns = part.prompt, part.messages
    return rows


def _shared(before: Sequence[object], now: Sequence[object]) -> int:
    """Length of the beginning that both have, by halving: comparisons of slices are quick."""
    low, high = 0, min(len(before), len(now))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[:middle] == now[:middle] else (low, middle - 1)
    return low


def _unfolded(value: object) -> object:
    """Whole prompts of what a file holds; anything else is for pydantic to refuse."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(_whole(value))


def _whole(rows: Sequence[object]) -> Iterator[PartPromptRecord]:
    before = PartPromptRecord(prompt="")
    for row in rows:
        if not isinstance(row, PartPromptRecord):
            written = _Written.model_validate(row)
            if written.same > len(before.prompt) or written.same_turns > len(before.messages):
                raise ValueError("a prompt shares more with the one before than there is")
            prompt = before.prompt[: written.same] + written.prompt
            turns = before.messages[: written.same_turns] + written.messages
            before = PartPromptRecord(
                prompt=before.prompt if prompt == before.prompt else prompt,
                messages=before.messages if turns == before.messages else turns,
                start=written.start,
            )
        else:
            before = row
        yield before


PartPrompts = Annotated[
    tuple[PartPromptRecord, ...],
    BeforeValidator(_unfolded),
    PlainSerializer(_folded, when_used="json"),
]
"""The part prompts of a context, in order."""
