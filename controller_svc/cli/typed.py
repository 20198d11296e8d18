"""Refusals in the words of the command line: its options and files, not a request's fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from seal.client import Document
from seal.errors import SealError

NAMED = MappingProxyType({"address": "--server", "name": "NAME", "namespace": "--namespace"})
"""What commands for an adaptation that is there call a request's fields."""
HANDED_IN = MappingProxyType(
    {
        "address": "--server",
        "name": "--name",
        "namespace": "--namespace",
        "options.seed": "--seed",
        "options.policy": "--policy",
        "options.candidates": "--candidates",
        "options.passage_tokens": "--passage-tokens",
        "options.replay_rows": "--replay-rows",
        "options.held_out_share": "--held-out",
        "options.gate.min_gain": "--min-gain",
        "options.gate.max_regression": "--max-regression",
    }
)
"""What `seal adapt` calls them."""
_PART = re.compile(r"\b(documents|questions)\[(\d+)\](?:\.([\w.]*\w))?")


@contextmanager
def as_typed(
    words: Mapping[str, str] = NAMED,
    *,
    documents: Sequence[Document] = (),
    questions: Path | None = None,
) -> Iterator[None]:
    """What is refused in this block names what was typed.

    `words`: options and arguments by the fields that they set. `documents`: as they are handed in;
    `questions`: the file of the request's questions, a row each.
    """

    def part(found: re.Match[str]) -> str:
        """The file of a document, or the row of a question."""
        place, below = int(found[2]), f", field {found[3]}" if found[3] else ""
        if found[1] == "documents" and place < len(documents):
            return documents[place].name + below
        if found[1] == "questions" and questions is not None:
            return f"{questions}, row {place + 1}{below}"
        return found[0]

    try:
        yield
    except SealError as error:
        error.message = _PART.sub(part, error.message)
        field = next((one for one in words if f"{error.field}.".startswith(f"{one}.")), "")
        if field:
            typed = words[field]
            said = error.message.removeprefix(f"{error.field}: ")
            if said != error.message or typed.startswith("--"):
                error.message = f"{typed}: {said}"
            error.field = typed
        raise
