"""Plain text: paragraphs between blank lines, no headings."""

from __future__ import annotations

import re

from seal.documents.model import Document, Outline, title_of_name

_BREAK = re.compile(r"\n(?:[^\S\n]*\n)+|\f|\u2029")
"""Blank lines, a new page, Unicode's end of a paragraph."""


def read_text(name: str, text: str) -> Document:
    """A document of one section; its title is its name's."""
    outline = Outline()
    for paragraph in paragraphs(text):
        outline.block(paragraph)
    return Document(name, title_of_name(name), outline.sections())


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return _BREAK.split(text)
