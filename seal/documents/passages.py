"""A document cut into passages of bounded tokens; all together hold every word of it, in order.

A passage is a section, or as much of one as fits: it ends at a paragraph where that leaves parts of
like size, else at a line, a sentence, a word, and only within a word that is longer than a passage.
Sections of a few words share a passage. The headings of a passage are its title; in a shared one
those that are not common to all stand in the text.

Tokens are counted elsewhere, by a tokenizer that this module does not know: `pieces` gives the
texts to count and `pack` takes the counts. What stands between two pieces is counted by itself, and
a few tokens are spared: together they may come to more than each alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby, takewhile

from seal.documents.model import Block, Document
from seal.domains.sentences import sentences, unwrapped
from seal.errors import InvalidInput
from seal.limits import MAX_PASSAGE_CHARACTERS

_SMALL_SHARE = 4
"""A section below this part of the bound shares a passage with its neighbour."""
_MAX_GAP_CHARACTERS = 80
"""Longer white space says no more than a single space."""
_MAX_INDENTATION = 80
_SPACE = re.compile(r"\s+")
_SPARE_TOKENS = 2
"""What a tokenizer may make of pieces together beyond what it makes of each."""
_MIN_ROOM = 8


class Cut(IntEnum):
    """Where a passage may begin, from the worst place to the best."""

    CHARACTER = 0
    WORD = 1
    SENTENCE = 2
    LINE = 3
    BLOCK = 4


@dataclass(frozen=True)
class Piece:
    """A run of a document's text that no passage cuts: a sentence, or a part of a long one."""

    text: str
    gap: str
    """What stands before it, unless a passage begins with it."""
    place: Cut
    """What a passage that begins with it cuts."""
    section: int
    """Index of its section."""
    is_heading: bool = False


@dataclass(frozen=True)
class Passage:
    """A part of a document that can be learnt."""

    document: str
    """Name of the document."""
    sections: range
    """Indexes of the sections that it is of; the first and last may be in other passages too."""
    title: str
    """Of document and section."""
    text: str
    tokens: int
    """About so many and never more than the bound, title excluded."""


def cut(
    document: Document, *, max_tokens: int, count: Callable[[Sequence[str]], Sequence[int]]
) -> tuple[Passage, ...]:
    """`pieces` and `pack` in one, for who can count tokens at once."""
    found = pieces(document, max_tokens=max_tokens)
    return pack(document, found, count([piece.text for piece in found]), max_tokens=max_tokens)


def pieces(document: Document, *, max_tokens: int) -> tuple[Piece, ...]:
    """The document's text in order, in pieces that are not cut any further.

    None has more bytes than a passage has tokens, so that each of them fits into a passage.
    """
    room = _room(max_tokens)
    return tuple(
        piece for index in range(len(document.sections)) for piece in _pieces(document, index, room)
    )


def pack(
    document: Document, pieces: Sequence[Piece], counts: Sequence[int], *, max_tokens: int
) -> tuple[Passage, ...]:
    """The passages of a document, in order; at least one.

    `counts[i]` are the tokens of `pieces[i].text` alone, without marks of a text's beginning or
    end.

    Raises:
        InvalidInput: a single piece has more tokens than a passage may have.

    """
    room = _room(max_tokens)
    if max(counts, default=0) > room:
        raise InvalidInput(
            f"the model's tokenizer makes more than {room} tokens of {room} bytes",
            field="passages.max_tokens",
            remedy="allow longer passages",
        )
    sized = (
        _Sized(piece, max(count, -(-len(piece.text) * room // MAX_PASSAGE_CHARACTERS)))
        for piece, count in zip(pieces, counts, strict=True)
    )
    units = [
        _Unit(document.sections[index].path, list(own))
        for index, own in groupby(sized, key=lambda one: one.piece.section)
    ]
    return tuple(
        passage
        for group in _groups(_under_headings(units), document, room)
        for passage in _passages(document, group, room)
    )


def _room(max_tokens: int) -> int:
    """Tokens that are given out to the pieces of a passage."""
    return max(_MIN_ROOM, max_tokens - _SPARE_TOKENS)


def _pieces(document: Document, index: int, room: int) -> Iterator[Piece]:
    """The pieces of one section, its own heading first."""
    section = document.sections[index]
    if section.path:
        for text, gap, place in _begun(_bounded(section.path[-1], room)):
            yield Piece(text, gap, place, index, is_heading=True)
    for block in section.blocks:
        for text, gap, place in _begun(_runs(block, room)):
            yield Piece(text, gap, place, index)


_Run = tuple[str, str, Cut]
"""A piece's text, the gap before it and what a cut there cuts."""


def _begun(runs: Iterable[_Run]) -> Iterator[_Run]:
    """The runs of a block, of which the first stands apart from the block before."""
    for number, (text, gap, place) in enumerate(runs):
        yield (text, gap, place) if number else (text, "\n\n", Cut.BLOCK)


def _runs(block: Block, room: int) -> Iterator[_Run]:
    """The pieces of a block."""
    breaks = 1
    for line in block.text.split("\n") if block.is_verbatim else unwrapped(block.text):
        bare = line.strip()
        if not bare:
            breaks = 2  # a blank line within code
            continue
        first = "\n" * breaks, Cut.LINE
        breaks = 1
        if block.is_verbatim:
            indentation = line[: len(line) - len(line.lstrip())][:_MAX_INDENTATION]
            parts: Iterable[tuple[str, str]] = ((indentation + bare, ""),)
        else:
            parts = _sentences(bare)
        for text, gap in parts:
            for number, (run, inner, place) in enumerate(_bounded(text, room)):
                yield (run, inner, place) if number else (run, *first)
            first = gap, Cut.SENTENCE


def _sentences(line: str) -> Iterator[tuple[str, str]]:
    """The sentences of a line, each with what stands between it and the next."""
    end = 0
    found = sentences(line, max_characters=len(line))
    for sentence in found:
        end = line.index(sentence, end) + len(sentence)
        yield sentence, " " if line[end : end + 1].isspace() else ""


def _bounded(text: str, room: int) -> Iterator[_Run]:
    """A text in runs of at most `room` bytes of UTF-8, cut at white space where possible."""
    start, gap, place = 0, "", Cut.WORD
    while start < len(text):
        end = start + len(text[start : start + room].encode()[:room].decode(errors="ignore"))
        next_gap, next_place = "", Cut.CHARACTER
        if end < len(text) and (space := _last_space(text, start, end)):
            end, next_gap, next_place = space.start(), space[0], Cut.WORD
        yield text[start:end], gap, place
        start = end + len(next_gap)
        gap = next_gap if len(next_gap) <= _MAX_GAP_CHARACTERS else " "
        place = next_place


def _last_space(text: str, start: int, end: int) -> re.Match[str] | None:
    """The last white space between two words that begins at `end` or before it."""
    for place in range(end, start, -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return _SPACE.match(text, place) if text[start:place].strip() else None
    return None


@dataclass(frozen=True)
class _Sized:
    """A piece with its tokens."""

    piece: Piece
    tokens: int

    @property
    def cost(self) -> int:
        """Its tokens where it follows another: those of the gap too, at the dearest."""
        return self.tokens + max(1, len(self.piece.gap.encode()))


@dataclass(frozen=True)
class _Unit:
    """Sections that a passage does not part unless they are too long for one."""

    path: tuple[str, ...]
    """Of the last of them; the others are headings that it stands under."""
    pieces: list[_Sized]

    @property
    def is_heading(self) -> bool:
        return all(one.piece.is_heading for one in self.pieces)

    @property
    def cost(self) -> int:
        return sum(one.cost for one in self.pieces)


def _under_headings(units: Iterable[_Unit]) -> Iterator[_Unit]:
    """Headings without a text of their own join the section below them."""
    above: list[_Sized] = []
    path: tuple[str, ...] = ()
    for unit in units:
        if above and unit.path[: len(path)] != path:
            yield _Unit(path, above)
            above = []
        joined = _Unit(unit.path, above + unit.pieces)
        above = []
        if unit.is_heading:
            above, path = joined.pieces, unit.path
        else:
            yield joined
    if above:
        yield _Unit(path, above)


def _groups(units: Iterable[_Unit], document: Document, room: int) -> Iterator[list[_Unit]]:
    """Units that share a passage: of two that fit into one, at least one is small."""
    small = room // _SMALL_SHARE
    group: list[_Unit] = []
    total, alone = 0, False
    for unit in units:
        cost = unit.cost
        stands_alone = document.sections[unit.pieces[-1].piece.section].stands_alone
        fits = total + cost <= room and min(total, cost) < small
        if group and (alone or stands_alone or not fits):
            yield group
            group, total = [], 0
        group.append(unit)
        total += cost
        alone = stands_alone
    if group:
        yield group


def _passages(document: Document, group: Sequence[_Unit], room: int) -> Iterator[Passage]:
    """The passages of units that stand together: one, or of a single unit as many as it takes."""
    path = _common([unit.path for unit in group])
    everything = [one for unit in group for one in unit.pieces]
    shown = [one for one in everything if not _is_told(one.piece, path, document)]
    if not shown:  # headings alone: the lowest, as often as it stands there, is the text
        path = path[:-1]
        shown = [one for one in everything if not _is_told(one.piece, path, document)]
    first = everything[0].piece.section
    for part in _parts(shown, room):
        texts = [part[0].piece.text]
        texts += [text for one in part[1:] for text in (one.piece.gap, one.piece.text)]
        ends = part[-1] is shown[-1]  # and with it the headings below, which the title tells
        last = (everything if ends else part)[-1].piece.section
        yield Passage(
            document.name,
            range(first, last + 1),
            document.title_of(path),
            "".join(texts),
            _size(part),
        )
        first = last


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that all stand under."""
    common = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return tuple(names[0] for names in common)


def _is_told(piece: Piece, path: tuple[str, ...], document: Document) -> bool:
    """True for a heading that the passage's title holds."""
    own = document.sections[piece.section].path
    return piece.is_heading and path[: len(own)] == own


def _size(part: Sequence[_Sized]) -> int:
    """Tokens of a passage, at most."""
    return part[0].tokens + sum(one.cost for one in part[1:])


def _parts(run: Sequence[_Sized], room: int) -> Iterator[Sequence[_Sized]]:
    """As few passages as it takes, of like size, cut at the best places near their ends."""
    rest = _size(run)
    start = 0
    while rest > room:
        end, size = _end_of_part(run, start, rest, room)
        yield run[start:end]
        rest -= size + run[end].cost - run[end].tokens
        start = end
    yield run[start:]


def _end_of_part(run: Sequence[_Sized], start: int, rest: int, room: int) -> tuple[int, int]:
    """Where the passage ends that begins at `start`, and its size.

    It is at least half as long as it should be, and leaves as much, where there is such a place.
    """
    wanted = rest / -(-rest // room)
    best: tuple[bool, Cut, float] | None = None
    found = start + 1, run[start].tokens
    end, size = start + 1, run[start].tokens
    while True:
        is_fair = 2 * size >= wanted and 2 * (rest - size) >= wanted
        rank = is_fair, run[end].piece.place, -abs(size - wanted)
        if best is None or rank > best:
            best, found = rank, (end, size)
        size += run[end].cost
        if size > room:
            return found
        end += 1
