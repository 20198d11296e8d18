"""A document as it was read: sections with their headings, made of blocks of text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from seal.limits import MAX_HEADING_CHARACTERS

_PATH = " > "
_NO_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1b\x7f\ud800-\udfff]")
"""Control characters, and halves of characters: what some files hold and no text is."""


@dataclass(frozen=True)
class Block:
    """A paragraph, a list, a table or a piece of code; without white space at its ends."""

    text: str
    is_verbatim: bool = False
    """True where lines and indentation say something: code and tables."""


@dataclass(frozen=True)
class Section:
    """What stands under one heading, up to the next."""

    path: tuple[str, ...]
    """Its heading after those that it stands under; empty for what has none."""
    blocks: tuple[Block, ...]
    stands_alone: bool = False
    """True for a row of a dataset: it shares no passage with others, however short it is."""

    @property
    def text(self) -> str:
        """All its blocks."""
        return "\n\n".join(block.text for block in self.blocks)


@dataclass(frozen=True)
class GivenQuestion:
    """A question with its gold answers, as it was given."""

    question: str
    answers: tuple[str, ...]
    """At least one."""
    document: str = ""
    """Name of the document that it is about; empty to look in all of them."""
    section: int | None = None
    """Index of the document's section that it is about, where that is known."""
    field: str = ""
    """Where it stands in the request: "questions[7]"."""


@dataclass(frozen=True)
class Document:
    """A document."""

    name: str
    """As the caller gave it."""
    title: str
    """May be empty: then the headings are the titles."""
    sections: tuple[Section, ...]
    questions: tuple[GivenQuestion, ...] = ()
    """Those that stand in the document itself, where it is a dataset."""
    unanswerable: int = 0
    """Questions of it that were left out: they have no answer."""

    @property
    def characters(self) -> int:
        """Length of its text."""
        return sum(len(block.text) for section in self.sections for block in section.blocks)

    def title_of(self, path: tuple[str, ...]) -> str:
        """Title of a passage under these headings: "document: chapter > section"."""
        section = _PATH.join(path)
        return ": ".join(part for part in (self.title, section) if part)


class Outline:
    """Collects headings and blocks in the order of the text; its sections are what came of it."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []
        self._sections: list[tuple[tuple[str, ...], list[Block]]] = [((), [])]

    def heading(self, level: int, text: str) -> None:
        """Begin a section. Level 1 is the highest; too long a heading is taken as a paragraph."""
        heading = " ".join(_NO_CHARACTERS.sub("", text).split())
        if not heading:
            return
        if len(heading) > MAX_HEADING_CHARACTERS:
            self.block(heading)
            return
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._path.append((level, heading))
        self._sections.append((tuple(name for _, name in self._path), []))

    def block(self, text: str, *, is_verbatim: bool = False) -> None:
        """Add a block to the section at work; one without text is none."""
        text = _NO_CHARACTERS.sub("", text)
        kept = text.rstrip().lstrip("\n") if is_verbatim else text.strip()
        if kept.strip():
            self._sections[-1][1].append(Block(kept, is_verbatim))

    def sections(self) -> tuple[Section, ...]:
        """All sections, also those of a heading alone."""
        return tuple(
            Section(path, tuple(blocks)) for path, blocks in self._sections if path or blocks
        )


def titled(name: str, sections: tuple[Section, ...], title: str = "") -> Document:
    """A document by its own title, else by its only highest heading, else by its name.

    A heading that is the title leaves the sections' paths, unless it is all that there is.
    """
    title = " ".join(title.split())
    top = {section.path[:1] for section in sections}
    has_more = any(section.blocks or section.path[1:] for section in sections)
    heading = next(iter(top)) if len(top) == 1 and has_more else ()
    if heading and title in ("", heading[0]):
        title = heading[0]
        sections = tuple(replace(section, path=section.path[1:]) for section in sections)
    return Document(name, title or title_of_name(name), sections)


def title_of_name(name: str) -> str:
    """A file's name as a title: without folders and suffix, "-" and "_" as spaces."""
    file = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    stem = re.sub(r"(?<=.)\.\w{1,8}\Z", "", file)
    words = " ".join(re.sub(r"[-_]+", " ", stem).split())
    return (words or " ".join(file.split()))[:MAX_HEADING_CHARACTERS].strip()
