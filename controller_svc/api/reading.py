"""What the documents of one request hold, as far as a request is refused for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seal.documents import Document, GivenQuestion, check_together, read_document
from seal.documents.questions import check_questions

CHECKED_CHARACTERS = 4 * 1024 * 1024
"""Text that is kept to look for the questions in it; in more of it `prepare` looks, which does
nothing else meanwhile."""
_PIECE_CHARACTERS = 200
"""What a section or a block takes beside its text."""


@dataclass(frozen=True)
class Unread:
    """A document as it was handed in."""

    name: str
    media_type: str
    """May be empty: then the name says what it is."""
    content: bytes
    field: str
    """Its place in the request: "documents[3]"."""


class Reading:
    """The documents of one request, added one after another; then its questions are checked."""

    def __init__(self) -> None:
        self._kept: list[Document] = []
        self._characters = self._held = 0

    def add(self, unread: Unread) -> bool:
        """Read a document; whether it brings questions.

        Raises:
            InvalidInput: it cannot be read, by its place, or all have too much text together.

        """
        read = read_document(unread.name, unread.media_type, unread.content, field=unread.field)
        self._characters += read.characters
        check_together(self._characters)
        self._held += _memory_characters(read)
        self._kept.append(read)
        if self._held > CHECKED_CHARACTERS:
            self._kept.clear()
        return bool(read.questions)

    def check(self, questions: Sequence[GivenQuestion], *, passage_tokens: int) -> None:
        """Refuse questions that no document is about, as `prepare` would once it has cut them.

        `passage_tokens`: of the longest passage.

        Raises:
            InvalidInput: names the field: "questions", "questions[7].answers".

        """
        if self._held > CHECKED_CHARACTERS:
            return
        own = (question for document in self._kept for question in document.questions)
        check_questions([*questions, *own], self._kept, passage_tokens=passage_tokens)


def _memory_characters(document: Document) -> int:
    """The memory that a document takes, in characters of text."""
    pieces = sum(1 + len(section.blocks) for section in document.sections)
    return document.characters + _PIECE_CHARACTERS * pieces
