"""How much text one passage may hold, for datasets and services alike.

A dataset refuses on load, by file and row, what a service would refuse hours later by its place in
a request. All are bounds against absurd sizes; the model's own positions are checked where its
tokenizer is known.
"""

from __future__ import annotations

MAX_TITLE_CHARACTERS = 1000
"""One title."""
MAX_PASSAGE_CHARACTERS = 65_536
"""One passage: what an edit is written on, or what an open-book question shows."""
MAX_QUESTION_CHARACTERS = 4000
"""One question."""
MAX_ANSWER_CHARACTERS = 4000
"""One gold answer."""
MAX_ANSWERS = 256
"""Gold answers to one question."""
MAX_QUESTIONS = 4096
"""Questions on one passage, and questions in one evaluation."""
MAX_ROW_CHARACTERS = 65_536
"""Prompt and completion of one training row together."""
