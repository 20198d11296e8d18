"""Questions as they lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seal.client import Document, Question
from seal.documents import GivenQuestion, read_document
from seal.documents.questions import check_questions
from seal.documents.questions import read_questions as read_rows
from seal.errors import InvalidInput
from seal.files import read_bounded
from seal.limits import MAX_DOCUMENT_BYTES, MAX_QUESTIONS
from seal.settings import PassageSettings


def read_questions(
    path: Path, documents: Sequence[Document], *, passage_tokens: int | None
) -> tuple[Question, ...]:
    """The questions of a JSONL file on these documents.

    Raises NotFound or InvalidInput naming the file, or the row that is none, or the passage of too
    many.
    """
    content = read_bounded(path, MAX_DOCUMENT_BYTES, field="questions")
    rows = read_rows(path.name, content, documents=[document.name for document in documents])
    if len(rows) > MAX_QUESTIONS:
        _check_passages(rows, documents, passage_tokens or PassageSettings().max_tokens)
    return tuple(
        Question(question=row.question, answers=row.answers, document=row.document) for row in rows
    )


def _check_passages(
    rows: Sequence[GivenQuestion], documents: Sequence[Document], passage_tokens: int
) -> None:
    """Refuse too many questions on one passage before anything is uploaded."""
    try:
        read = [read_document(one.name, one.media_type, one.content) for one in documents]
    except InvalidInput:
        return  # a server may read what this machine has no extra for, or refuse it by its place
    given = [*rows, *(own for one in read for own in one.questions)]
    check_questions(given, read, passage_tokens=passage_tokens)
