"""Questions as they lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seal.client import Document, Question
from seal.documents.questions import read_questions as read_rows
from seal.files import file_errors


def read_questions(path: Path, documents: Sequence[Document]) -> tuple[Question, ...]:
    """The questions of a JSONL file on these documents.

    Raises NotFound or InvalidInput naming the file, or the row that is none.
    """
    with file_errors(path):
        content = path.read_bytes()
    rows = read_rows(path.name, content, documents=[document.name for document in documents])
    return tuple(
        Question(question=row.question, answers=row.answers, document=row.document) for row in rows
    )
