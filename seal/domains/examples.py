"""From text to training rows.

Documents under their title, cut or split at words so that none is longer than the bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from seal.domains.base import Example
from seal.domains.words import normalise
from seal.settings import ExampleSettings

_SEPARATOR = re.compile(r"-{3,}")
_BULLETS = re.compile(r"(?:[>#*+\u2022\u00b7\u2013-]+\s+)+")
_NUMBER = re.compile(r"\(?\d{1,2}[.)](?:\s+|$)")


def segments(text: str) -> list[str]:
    """An edit's parts between `---`."""
    return _SEPARATOR.split(text)


def plain_line(line: str) -> str:
    """A line without list markers, numbering and bold; runs of white space become one space."""
    line = line.replace("**", "").strip()
    if bullets := _BULLETS.match(line):
        line = line[bullets.end() :]
    if number := _NUMBER.match(line):
        line = line[number.end() :]
    return " ".join(line.split())


def has_words(text: str) -> bool:
    """True if there is a letter or digit."""
    return any(character.isalnum() for character in text)


def is_heading(line: str) -> bool:
    """True for a line that only announces what follows, for example "Implications:"."""
    return line.endswith((":", "\uff1a"))


def statements(text: str) -> list[str]:
    """An edit's statements: one per line, no headings, no lines without words, no repetitions."""
    lines = (plain_line(line) for part in segments(text) for line in part.splitlines())
    return distinct(line for line in lines if has_words(line) and not is_heading(line))


def distinct(lines: Iterable[str]) -> list[str]:
    """The lines in order, each once by its normalised words."""
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(normalise(line) or line, line)
    return list(first.values())


def document(title: str, body: str, settings: ExampleSettings) -> Example:
    """One text under its title; the body is cut at a word where it is too long."""
    heading = title_line(title, settings)
    return Example(
        prompt="", completion=heading + cut(body, settings.max_characters - len(heading))
    )


def documents(title: str, body: str, settings: ExampleSettings) -> tuple[Example, ...]:
    """A text under its title, in as many pieces as the bound asks for: nothing is lost."""
    heading = title_line(title, settings)
    return tuple(
        Example(prompt="", completion=heading + piece)
        for piece in pieces(body, settings.max_characters - len(heading))
    )


def title_line(title: str, settings: ExampleSettings) -> str:
    """The title and a line break, or nothing.

    Nothing without a title, or if it would take more than half of the example.
    """
    line = " ".join(title.split())
    return f"{line}\n" if line and 2 * (len(line) + 1) <= settings.max_characters else ""


def cut(text: str, room: int) -> str:
    """The text, or its beginning up to the last white space that fits in `room` characters.

    It is cut within a word only if the first one is too long.
    """
    return next(pieces(text, room), "")


def pieces(text: str, room: int) -> Iterator[str]:
    """The whole text in pieces of at most `room` characters, cut at white space where possible."""
    text = text.strip()
    start = 0
    while start < len(text):
        end = _end_of_piece(text, start, room)
        yield text[start:end].rstrip()
        while end < len(text) and text[end].isspace():
            end += 1
        start = end


def _end_of_piece(text: str, start: int, room: int) -> int:
    """Where the piece that begins at `start` ends.

    At the last white space in reach, else after `room` characters.
    """
    if len(text) - start <= room:
        return len(text)
    return next(
        (end for end in range(start + room, start, -1) if text[end].isspace()), start + room
    )
