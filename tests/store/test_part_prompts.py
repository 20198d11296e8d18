"""Part prompts in records: what they share is written once, and comes back whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.part_prompts import PartPromptRecord
from seal.prompts import Message
from seal.records import ContextEditsRecord
from seal.settings import BY_SENTENCE, PromptFormat

TEXTS = st.text("ab\u00e9\U0001f600", max_size=6)
MESSAGES = st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=TEXTS)
PARTS = st.builds(
    PartPromptRecord,
    prompt=TEXTS,
    messages=st.lists(MESSAGES, max_size=3).map(tuple),
    start=TEXTS,
)


def record(*parts: PartPromptRecord) -> ContextEditsRecord:
    return ContextEditsRecord(context_id="c", parts=parts, edits=(), engine_seconds=0)


@given(st.lists(PARTS, max_size=6))
def test_part_prompts_come_back_as_they_were(parts: list[PartPromptRecord]) -> None:
    written = record(*parts)
    assert ContextEditsRecord.model_validate_json(written.model_dump_json()) == written
    assert ContextEditsRecord.model_validate(written.model_dump()) == written


@pytest.mark.parametrize("format", ["base", "chat"])
def test_worked_examples_are_written_once_a_context(format: PromptFormat) -> None:
    (context,) = load_contexts("corpus://validation", limit=1)
    asked = get_domain("knowledge").edit_prompts(context.title, context.text, BY_SENTENCE, format)
    parts = [
        PartPromptRecord(prompt=part.prompt.text, messages=part.prompt.messages, start=part.start)
        for part in asked
    ]
    whole = sum(len(part.model_dump_json()) for part in parts)
    written = record(*parts).model_dump_json()
    assert len(written) < whole / 15
    again = ContextEditsRecord.model_validate_json(written).parts
    assert len({id(part.prompt) for part in again}) <= len(parts) / 7


@pytest.mark.parametrize("change", [{"same": 4}, {"same_turns": 1}, {"same": -1}, {"shared": 1}])
def test_a_prompt_that_shares_what_is_not_there_is_refused(change: dict[str, int]) -> None:
    rows = [{"prompt": "abc"}, {"prompt": "d"} | change]
    values = {"context_id": "c", "parts": rows, "edits": [], "engine_seconds": 0}
    with pytest.raises(ValidationError, match="parts"):
        ContextEditsRecord.model_validate_json(json.dumps(values))
