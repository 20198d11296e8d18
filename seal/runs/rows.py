"""Rows that the policy learns, as a trainer takes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Protocol

from seal.limits import MAX_ROW_CHARACTERS
from seal.records import LearntRow
from seal.rpc.convert import chat_message_list
from seal.v1 import trainer_pb2


class RowCounter(Protocol):
    """Who knows how long rows are."""

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """Tokens of each row."""


async def fitting_rows(
    rows: Sequence[LearntRow], max_row_tokens: int, trainer: RowCounter
) -> list[bool]:
    """For each row, whether a training can take it."""
    examples = [training_row(row) for row in rows]
    short = [row_characters(row) <= MAX_ROW_CHARACTERS for row in examples]
    counts = iter(await trainer.count_tokens(list(compress(examples, short))))
    return [is_short and next(counts) <= max_row_tokens for is_short in short]


def training_row(row: LearntRow) -> trainer_pb2.TrainingExample:
    """A row of the M-step to the wire."""
    return trainer_pb2.TrainingExample(
        prompt=row.prompt, messages=chat_message_list(row.messages), completion=row.completion
    )


def row_characters(row: trainer_pb2.TrainingExample) -> int:
    """Characters of prompt, turns and completion."""
    of_messages = sum(len(message.content) for message in row.messages)
    return len(row.prompt) + len(row.completion) + of_messages
