"""PDF: the text of its pages, with sections where its outline names a line of a page.

Needs the extra `documents`. A PDF says where characters stand, not what they are: lines that were
wrapped and words that were hyphenated are put together again, and tables are lines of text.

A small file may hold a great deal, on purpose or not: pages, text and drawing operations are
bounded, beside what pypdf bounds itself.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seal.documents.model import Document, Outline, titled
from seal.documents.source import EXTRA_REMEDY, Source
from seal.documents.text import paragraphs
from seal.errors import InvalidInput
from seal.limits import MAX_DOCUMENT_CHARACTERS, MAX_DRAWING_OPERATIONS, MAX_PAGES

if TYPE_CHECKING:
    from pypdf import PdfReader

_BROKEN = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
)
"""What a reader of a foreign format raises where a file is not as it should be."""
_WORD_BEGINS = r"(?<![^\W\d_])"
"""Looked for within a word as well, each letter of a long one would be the start of a search."""
_WITHIN_WORD = re.compile(rf"{_WORD_BEGINS}(?P<head>[^\W\d_]+)[-\u00ad]\n(?P<tail>[^\W\d_]+)")
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
"""Letters that fonts draw as one: "fi" and the like."""
_HYPHENATED = re.compile(rf"{_WORD_BEGINS}[^\W\d_]+-[^\W\d_]+")
_END = re.compile(r"[.!?\u2026\u3002:;][\"'\u2019\u201d)\]]{0,3}\Z")
_SAVE_AGAIN = "save it again with another program, or hand in its text"
_CUT = "cut it into several"
_Headings = Mapping[int, Sequence[tuple[int, str]]]
"""Level and title of each entry of the outline, by page."""


def read_pdf(source: Source) -> Document:
    """A document of the PDF's text; its title is its name's.

    Raises:
        InvalidInput: it is broken, protected, too large or without text, or pypdf is not installed.

    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, LimitReachedError, PyPdfError
    except ModuleNotFoundError:
        problem = "is a PDF, and what reads those is not installed here"
        raise source.refuse(problem, EXTRA_REMEDY, at="media_type") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # its warnings hold document text
    try:
        reader = PdfReader(io.BytesIO(source.content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise source.refuse("is protected by a password", "save it without a password")
        return _document(source, reader)
    except InvalidInput:
        raise
    except (LimitReachedError, MemoryError):
        raise source.refuse("holds too much", _CUT) from None
    except DependencyError:
        raise source.refuse("is protected", "save it without protection") from None
    except (PyPdfError, *_BROKEN):
        raise source.refuse("is no PDF that can be read", _SAVE_AGAIN) from None


def _document(source: Source, reader: PdfReader) -> Document:
    number = len(reader.pages)
    if number > MAX_PAGES:
        raise source.refuse(f"has {number} pages, the limit is {MAX_PAGES}", _CUT)
    pages = [_lines(text) for text in _pages(source, reader)]
    if not any(pages):
        remedy = "recognise its text first: its pages may be pictures of one"
        raise source.refuse("holds no text", remedy)
    outline = Outline()
    text: list[str] = []
    headings = _headings(reader)
    for index, lines in enumerate(pages):
        for level, title, before in _cut_at(lines, headings.get(index, ())):
            text += before if not text or _goes_on(text, before) else ["", *before]
            if level:
                _add(outline, text)
                outline.heading(level, title)
                text = []
    _add(outline, text)
    return titled(source.name, outline.sections())


def _pages(source: Source, reader: PdfReader) -> Iterator[str]:
    """The text of each page."""
    characters = operations = 0
    problem = ""

    def count(*_: Any) -> None:
        nonlocal operations
        operations += 1
        if operations > MAX_DRAWING_OPERATIONS:  # a single page may hold any number
            raise source.refuse(problem, _CUT)

    for number, page in enumerate(reader.pages, 1):
        problem = f"holds too much by page {number} of {len(reader.pages)}"
        text = page.extract_text(visitor_operand_before=count)
        characters += len(text)
        if characters > MAX_DOCUMENT_CHARACTERS or operations > MAX_DRAWING_OPERATIONS:
            raise source.refuse(problem, _CUT)
        yield text


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.translate(_LIGATURES).strip().splitlines()]


def _headings(reader: PdfReader) -> _Headings:
    """The outline, as far as it can be read: the text does not depend on it."""
    from pypdf.errors import PyPdfError

    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    try:
        todo: list[tuple[int, Any]] = [(0, reader.outline)]
        while todo:
            level, entry = todo.pop()
            if isinstance(entry, list):
                todo += [(level + 1, one) for one in reversed(entry)]
            elif (page := reader.get_destination_page_number(entry)) is not None:
                found[page].append((level, " ".join(str(entry.title).split())))
    except (PyPdfError, *_BROKEN):
        return {}
    return found


def _cut_at(
    lines: Sequence[str], headings: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, str, list[str]]]:
    """The lines of a page before each heading that stands in it, and those after the last.

    With each the heading's level and title; level 0 for the last. A heading that is no line of its
    page, or not in the order of the outline, is left out.
    """
    start = 0
    for level, title in headings:
        bare = "".join(title.split())
        for place in range(start, len(lines) if bare else start):
            if "".join(lines[place].split()) == bare:
                yield level, title, list(lines[start:place])
                start = place + 1
                break
    yield 0, "", list(lines[start:])


def _goes_on(text: Sequence[str], lines: Sequence[str]) -> bool:
    """True if a page goes on with the sentence that the page before has begun."""
    return bool(lines) and not _END.search(text[-1]) and not lines[0][:1].isupper()


def _add(outline: Outline, lines: Sequence[str]) -> None:
    for paragraph in paragraphs(_joined_words("\n".join(lines))):
        outline.block(paragraph)


def _joined_words(text: str) -> str:
    """Words that a line break has parted, whole again.

    The hyphen stays where the text has the word with it in the middle of a line, or where no
    lower-case letter follows.
    """
    hyphenated = {word.casefold() for word in _HYPHENATED.findall(text)}

    def join(found: re.Match[str]) -> str:
        whole = f"{found['head']}-{found['tail']}"
        keeps = whole.casefold() in hyphenated or not found["tail"][0].islower()
        return whole if keeps else found["head"] + found["tail"]

    return _WITHIN_WORD.sub(join, text)
