"""Plain text: paragraphs between blank lines, no headings."""

from __future__ import annotations

import re

from seal.documents.model import Document, Outline, title_of_name

_BREAK = re.compile(r"\n(?:[^\S\n]*\n)+|\f|\u2029")
"""Blank lines, a new page, Unicode's end of a paragraph."""


def read_text(name: str, text: str) -> Document:
    """A document of one section; its title is its name's."""
    return Document(name, title_of_name(name), text_outline(text).sections())


def text_outline(text: str) -> Outline:
    """The paragraphs of a text."""
    outline = Outline()
    for paragraph in _BREAK.split(text):
        outline.block(paragraph)
    return outline
