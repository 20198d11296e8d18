"""Any document from its bytes: its media type decides who reads it.

What cannot be read is refused by field and remedy, and no text of it is in the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from seal.documents.html import read_html
from seal.documents.markdown import read_markdown
from seal.documents.model import Document
from seal.documents.pdf import read_pdf
from seal.documents.rows import read_rows_document
from seal.documents.source import Source, check_name, check_size, decode
from seal.documents.text import read_text
from seal.domains.words import words
from seal.errors import InvalidInput
from seal.limits import (
    MAX_ALL_CHARACTERS,
    MIN_DOCUMENT_WORDS,
)

TEXT = "text/plain"
MARKDOWN = "text/markdown"
JSON = "application/json"
JSON_LINES = "application/jsonl"
HTML = "text/html"
PDF = "application/pdf"

_BY_SUFFIX = MappingProxyType(
    {
        ".txt": TEXT,
        ".text": TEXT,
        ".md": MARKDOWN,
        ".markdown": MARKDOWN,
        ".json": JSON,
        ".jsonl": JSON_LINES,
        ".html": HTML,
        ".htm": HTML,
        ".pdf": PDF,
    }
)
SUFFIXES = tuple(_BY_SUFFIX)
"""Ends of the names that say what a file is."""
_WORDS_LOOKED_AT = 10_000
"""Characters; a document has its second word in its first ones, or nobody can read it."""


def check_together(characters: int) -> None:
    """Refuse documents that have so much text together.

    Raises:
        InvalidInput: it is too much.

    """
    if characters > MAX_ALL_CHARACTERS:
        raise InvalidInput(
            f"the documents have more than {MAX_ALL_CHARACTERS} characters together",
            field="documents",
            remedy="part them among several adaptations",
        )


def media_type_of(name: str, media_type: str = "", *, field: str = "") -> str:
    """The media type of a document, by its name where none is given.

    Raises:
        InvalidInput: it is none that is read.

    """
    given = media_type.partition(";")[0].strip().lower()
    if given in _READERS:
        return given
    source = Source(name, b"", field)
    known = ", ".join(_READERS)
    if given:
        problem = "has a media type that is not read"
        raise source.refuse(problem, f"use one of: {known}", at="media_type")
    suffix = re.search(r"\.\w+\Z", name.lower())
    if suffix is None or suffix[0] not in _BY_SUFFIX:
        raise source.refuse(
            "does not say what it is",
            f"give its media type ({known}), or a name that ends with one of: "
            + ", ".join(SUFFIXES),
            at="media_type",
        )
    return _BY_SUFFIX[suffix[0]]


def read_document(name: str, media_type: str, content: bytes, *, field: str = "") -> Document:
    """Read a document; it has at least two words.

    `media_type` may be empty: then the name says what it is. `field` is the document's place in the
    request, for example "documents[3]". It takes seconds for the largest documents: services call
    it in a thread.

    Raises:
        InvalidInput: the name, the media type or the content is none that can be read; without
            document text.

    """
    source = Source(name, content, field)
    check_name(name, field=f"{field}.name" if field else "name")
    reader = _READERS[media_type_of(name, media_type, field=field)]
    if not content:
        raise source.refuse("is empty", "give its content, or leave it out")
    check_size(source)
    document = reader(source)
    _check_words(source, document)
    return document


def _check_words(source: Source, document: Document) -> None:
    """Refuse what holds nothing to learn."""
    found = 0
    for section in document.sections:
        for text in (*section.path, *(block.text for block in section.blocks)):
            found += len(words(text[:_WORDS_LOOKED_AT], english=False))
            if found >= MIN_DOCUMENT_WORDS:
                return
    problem = "holds a single word" if found else "holds no word"
    raise source.refuse(problem, "give a text that something can be learnt from")


def _rows(source: Source) -> Document:
    text = decode(source)
    try:
        return read_rows_document(source.name, text)
    except InvalidInput as error:
        field = source.refuse("", "").field  # the row is in the message, with the file
        raise InvalidInput(error.message, field=field, remedy=error.remedy) from None


_READERS: Mapping[str, Callable[[Source], Document]] = MappingProxyType(
    {
        TEXT: lambda source: read_text(source.name, decode(source)),
        MARKDOWN: lambda source: read_markdown(source.name, decode(source)),
        JSON: _rows,
        JSON_LINES: _rows,
        HTML: read_html,
        PDF: read_pdf,
    }
)
