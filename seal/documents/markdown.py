"""Markdown: sections at its headings, code and tables with their lines.

Read as CommonMark has it: headings with # and underlined ones, no heading within fenced or indented
code. Front matter (`---` ... `---` at the top) gives the title; its other lines are text like any
other, so that nothing is lost. All other markup stays in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from seal.documents.model import Document, Outline, titled
from seal.limits import MAX_HEADING_CHARACTERS

_HEADING = re.compile(r" {0,3}(?P<marks>#{1,6})(?P<text>[ \t].*)?\Z")
_UNDERLINE = re.compile(r" {0,3}(?:(?P<first>=+)|-+)[ \t]*\Z")
_FENCE = re.compile(r"\s*(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})")
_DELIMITERS = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\Z|\|\s*:?-+:?\s*\|\Z")
"""The row under a table's head, without white space at its ends."""
_ITEM_OR_QUOTE = re.compile(r" {0,3}(?:[>|]|(?:[-*+]|\d{1,9}[.)])(?:[ \t]|\Z))")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])[ \t]")
_INDENTED = re.compile(r" {4}|\t")
_EMPHASIS = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)|(?<!\w)[*_]+(?=\S)|(?<=\S)[*_]+(?!\w)"
)
_FRONT_MATTER_LINES = 200
_TITLE = re.compile(r"title[ \t]*:[ \t]*(?:[|>][-+\d]*\Z|(?P<title>.+))", re.I)
"""Its text, or the sign that the indented lines below it are that."""
_QUOTED = re.compile(r"(?P<quote>[\"'])(?P<text>.+)(?P=quote)\Z")


def read_markdown(name: str, text: str) -> Document:
    """A document with a section for each heading."""
    lines = text.split("\n")
    title, front, rest = _front_matter(lines)
    reader = _Reader()
    reader.outline.block("\n".join(front), is_verbatim=True)
    reader.read(rest)
    return titled(name, reader.outline.sections(), title)


def _front_matter(lines: Sequence[str]) -> tuple[str, list[str], Sequence[str]]:
    """The title, the other lines of the front matter, and the lines after it."""
    within = (number for number, line in enumerate(lines) if line.rstrip() in ("---", "..."))
    if next(within, None) != 0 or lines[0].rstrip() != "---":
        return "", [], lines
    end = next(within, _FRONT_MATTER_LINES)
    if end >= _FRONT_MATTER_LINES:
        return "", [], lines
    title, front = "", list(lines[1:end])
    for place, line in enumerate(front):
        if (found := _TITLE.match(line)) is None:
            continue
        below = list(takewhile(lambda line: line[:1] in (" ", "\t"), front[place + 1 :]))
        whole = " ".join(" ".join([found["title"] or "", *below]).split())
        if quoted := _QUOTED.match(whole):
            whole = quoted["text"]
        if 0 < len(whole) <= MAX_HEADING_CHARACTERS:
            title = whole
            del front[place : place + 1 + len(below)]
        break
    return title, front, lines[end + 1 :]


class _Reader:
    """Reads line by line; `_block` holds the lines of the paragraph at work."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._block: list[str] = []
        self._fence = ""
        self._in_list = False
        """What is indented belongs to an item, and is no code by its indentation alone."""

    def read(self, lines: Sequence[str]) -> None:
        for line in lines:
            if self._fence:
                self._code(line)
            elif (fence := _FENCE.match(line)) and (self._in_list or not _INDENTED.match(line)):
                self._end_block()
                self._fence = fence["fence"]
                self._block.append(line)
            else:
                self._line(line)
        if self._fence:  # never closed: all the rest is code
            self._end_code()
        self._end_block()

    def _code(self, line: str) -> None:
        self._block.append(line)
        bare = line.strip()
        if len(bare) >= len(self._fence) and bare == self._fence[0] * len(bare):
            self._end_code()

    def _line(self, line: str) -> None:
        if not line.strip():
            self._end_block()
        elif heading := _HEADING.match(line):
            self._end_block()
            self._heading(len(heading["marks"]), _without_closing(heading["text"] or ""))
        elif self._is_underlined() and (underline := _UNDERLINE.match(line)):
            text = self._block.pop()
            self._heading(1 if underline["first"] else 2, text)
        else:
            is_item = _ITEM.match(line) is not None
            if is_item or not (self._block or line[0].isspace()):
                self._in_list = is_item
            self._block.append(line)

    def _is_underlined(self) -> bool:
        """True if the line before can be a heading: the only one of a paragraph."""
        return (
            len(self._block) == 1
            and not _INDENTED.match(self._block[0])
            and not _ITEM_OR_QUOTE.match(self._block[0])
        )

    def _heading(self, level: int, text: str) -> None:
        self._in_list = False
        if len(text) <= MAX_HEADING_CHARACTERS:  # a longer one is a paragraph, and stays as it is
            text = _EMPHASIS.sub(lambda mark: mark["code"] or "", text)
        self.outline.heading(level, text)

    def _end_code(self) -> None:
        self.outline.block("\n".join(self._block), is_verbatim=True)
        self._block.clear()
        self._fence = ""

    def _end_block(self) -> None:
        block = self._block
        is_table = len(block) > 1 and bool(_DELIMITERS.match(block[1].strip()))
        is_code = bool(block) and all(map(_INDENTED.match, block))
        self.outline.block("\n".join(block), is_verbatim=is_table or is_code)
        block.clear()


def _without_closing(text: str) -> str:
    """The text of a heading without the # that may close it after a space."""
    text = text.strip(" \t")
    bare = text.rstrip("#")
    return text if bare[-1:] not in ("", " ", "\t") else bare.rstrip(" \t")
