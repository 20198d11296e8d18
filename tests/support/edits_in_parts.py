"""A prompt family in parts for tests: `self-qa` asks for one part per sentence of a passage.

A part starts with "What", and is the question with its answer in one line; "-" abstains.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from seal.domains.base import Context, Example, PartExample, PartPrompt
from seal.domains.knowledge import KnowledgeDomain
from seal.domains.pairs import parse_pairs
from seal.prompts import Message, Prompt

START = "What"
WORKED = "Worked examples.\n"


def sentences(text: str) -> list[str]:
    """The passage cut at full stops."""
    return [sentence.strip() for sentence in text.split(".") if sentence.strip()]


def edit_prompts(
    self: KnowledgeDomain,
    title: str,
    text: str,
    family: str,
    format: str,
    *,
    trained: bool = False,
) -> tuple[PartPrompt, ...]:
    """One part per sentence."""
    worked = "" if trained else WORKED
    asked = [f"{worked}{title}: {sentence}.\n" for sentence in sentences(text)]
    if format == "base":
        return tuple(PartPrompt(Prompt(text=each, stop=("\n\n",)), START) for each in asked)
    return tuple(PartPrompt(Prompt(messages=(Message("user", each),)), START) for each in asked)


def parse_parts(
    self: KnowledgeDomain, texts: Sequence[str], *, context: Context, **settings: object
) -> tuple[PartExample, ...]:
    """The first pair of each part, once."""
    found: dict[str, PartExample] = {}
    for part, text in enumerate(texts):
        for pair in parse_pairs(text)[:1]:
            example = Example(prompt=f"{pair.question} ", completion=pair.answer)
            found.setdefault(pair.question, PartExample(part, example, pair.question, pair.answer))
    return tuple(found.values())


def use_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the knowledge domain ask and parse so."""
    monkeypatch.setattr(KnowledgeDomain, "edit_prompts", edit_prompts)
    monkeypatch.setattr(KnowledgeDomain, "parse_parts", parse_parts)
