"""Questions as they lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seal.client import Document, Question
from seal.documents.questions import read_questions as read_rows
from seal.files import read_bounded
from seal.limits import MAX_DOCUMENT_BYTES


def read_questions(path: Path, documents: Sequence[Document]) -> tuple[Question, ...]:
    """The questions of a JSONL file on these documents.

    Raises NotFound or InvalidInput naming the file, or the row that is none.
    """
    content = read_bounded(path, MAX_DOCUMENT_BYTES, field="questions")
    rows = read_rows(path.name, content, documents=[document.name for document in documents])
    return tuple(
        Question(question=row.question, answers=row.answers, document=row.document) for row in rows
    )
