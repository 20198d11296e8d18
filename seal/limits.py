"""Bounds of what one request may hold, for datasets, a run's settings and services alike.

A dataset refuses on load, by file and row, and a manifest by field, what a service would refuse
hours later by its place in a request. All are bounds against absurd sizes; the model's own
positions are checked where its tokenizer is known, ranks against the engine's slots.
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
MAX_COUNTED_CHARACTERS = 2 * MAX_ROW_CHARACTERS
"""One row whose tokens are counted: that may be a whole passage with what is asked about it."""
MAX_TURNS = 64
"""Turns of one chat: an empty one is few bytes on the wire, but many tokens of its template."""
MAX_ROWS = 20_000
"""Rows of one training."""
MAX_STEPS = 200_000
"""Optimiser steps of one training: epochs x rows / batch size."""
MAX_CHECKPOINT_SECONDS = 86_400.0
"""Longest time between two checkpoints of a training, seconds."""
MAX_RANK = 1024
"""Rank of one adapter; the engine's slots may allow less."""
MAX_TARGET_MODULES = 32
"""Names of the layers that one adapter is on."""
MAX_TEMPERATURE = 10.0
"""Softmax temperature of a sample."""
MIN_TOP_P = 1e-6
"""Nucleus mass of a sample."""
MAX_PART_TEXTS = 64
"""Texts that a passage is cut into where an edit is written in parts, one or more for each text: in
a passage of more sentences neighbours share one, so that nothing of it is left out."""
MAX_EDITS = 8192
"""Rows that one request asks for, over all its contexts: an edit has one for each of its parts."""
MAX_EDIT_TOKENS = 8192
"""New tokens of one part of an edit."""
MAX_CONTEXT_EDITS_BYTES = 4 * 1024 * 1024 - 4096
"""The edits of one context with their prompts: they travel in one message."""
MAX_ANSWER_TOKENS = 4096
"""New tokens of one answer."""
MAX_DOCUMENTS = 1000
"""Documents of one adaptation."""
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""One document as it is handed in."""
MAX_DOCUMENT_CHARACTERS = 16 * 1024 * 1024
"""Text of one document: a compressed file may hold far more than its size says."""
MAX_DOCUMENT_NAME_CHARACTERS = 255
"""Name of one document."""
MAX_PAGES = 5000
"""Pages of one PDF."""
MIN_DOCUMENT_WORDS = 2
"""Words of one document: nothing can be learnt from a single one."""
MAX_HEADING_CHARACTERS = 120
"""A longer heading of a document is text: a title has room for six of them and the document's."""
MAX_GIVEN_QUESTIONS = 20_000
"""Questions that are given to one adaptation."""
