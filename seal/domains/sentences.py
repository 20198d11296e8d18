"""A text cut into its sentences, by rules and without a model.

Every sentence is a run of the text with single spaces; all together hold all of it. The rules:

    lines       a blank line, a list item and a heading begin anew; a line break ends a sentence
                unless the next line begins in lower case, or its first word had no room
    marks       . ! ? ... and those of other scripts that a space follows, with the quotes, brackets
                and footnotes ("[3]") that close behind them; 。 and । need no space
    goes on     before a lower-case word, a comma or a dash, within brackets, after a list's number
    full stops  end no sentence after a title ("Dr."), after "No." or "Jan." before a number, and
                after initials, acronyms and other abbreviations ("J. R.", "U.S.", "Inc.") unless a
                word follows that often begins a sentence

Where the rules are in doubt two sentences stay one. The work is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from seal.domains.examples import pieces

MAX_SENTENCE_CHARACTERS = 600
"""A longer sentence is cut at a word."""

_SPACED_MARKS = ".!?\u2026\u203c\u203d\u2047-\u2049\u037e\u0589\u061f\u06d4\u1362\u1367\u1368"
"""Western marks, and the Greek, Armenian, Arabic, Urdu and Ethiopic ones: a space follows."""
_CLOSE_MARKS = (
    "\u3002\uff01\uff0e\uff1f\uff61"  # Chinese, Japanese
    "\u0964\u0965"  # Indic dandas
    "\u104a\u104b\u17d4\u17d5\u1803\u1809"  # Burmese, Khmer, Mongolian
)
"""Marks after which the next sentence may follow without a space."""
_CLOSERS = "\"'\u2019\u201d\u00bb\u203a)\\]}\u3009\u300b\u300d\u300f\u3011\uff09\uff3d"
_END = re.compile(
    rf"(?P<marks>[{_SPACED_MARKS}{_CLOSE_MARKS}]+)"
    rf"(?P<closed>[{_CLOSERS}]*(?:\[[\w ,]{{1,20}}\])*)"
)
_NEXT = re.compile(
    r"\s*[\"'\u2018\u201c\u00ab\u2039(\[{\u00bf\u00a1\u300c\u300e\uff08]{0,4}(?P<word>\S?)"
)
_BRACKETED = re.compile(r"\([^()]{0,300}\)|\[[^\[\]]{0,300}\]|\uff08[^\uff08\uff09]{0,300}\uff09")
_END_OF_LINE = re.compile(rf"[{_SPACED_MARKS}{_CLOSE_MARKS}:\uff1a][{_CLOSERS}]{{0,4}}\Z")
_ITEM = re.compile(
    r"(?:[-*+>\u2022\u00b7\u2023\u25aa]|#{1,6}|\(?(?P<number>\d{1,2})[.)]|\(?[a-z]\))\s"
)
_NUMBERING = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})")
_MIN_WRAP_CHARACTERS = 40
"""Text in shorter lines is not wrapped: its lines are meant."""
_LAST_WORD = re.compile(r"[^\s(\[\"'\u2018\u201c\u00ab/\u2013\u2014]+\Z")
_MAX_ABBREVIATION = 20
"""Characters looked at before a full stop."""
_ACRONYM = re.compile(r"[^\W\d_](?:\.[^\W\d_]{1,2})+|(?:[^\W\d_]{1,2}\.)+[^\W\d_]")

_BEFORE_NAMES = frozenset(
    (
        *("mr", "mrs", "ms", "mx", "dr", "prof", "rev", "fr", "hon", "msgr", "mme", "mlle"),
        *("gen", "col", "maj", "capt", "cpt", "cmdr", "lt", "sgt", "cpl", "pvt", "adm", "brig"),
        *("gov", "sen", "rep", "pres", "supt", "insp", "mt", "ft", "messrs"),
        *("e.g", "i.e", "cf", "vs", "viz", "approx", "resp", "incl", "esp", "op"),
    )
)
"""Abbreviations that end no sentence: something always follows."""
_MONTHS = ("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec")
_BEFORE_NUMBERS = frozenset(
    (
        *_MONTHS,
        *("no", "nos", "nr", "vol", "vols", "p", "pp", "fig", "figs", "eq", "ch", "sec", "art"),
        *("c", "ca", "cap", "b", "d", "r"),
    )
)
"""Abbreviations that end no sentence before a number."""
_ABBREVIATIONS = frozenset(
    (
        *(month for month in _MONTHS if month not in ("mar", "jun", "jul")),
        *("inc", "ltd", "co", "corp", "bros", "plc", "jr", "sr", "esq", "st", "ste", "ave"),
        *("blvd", "rd", "hwy", "etc", "al", "dept", "univ", "assn", "est", "ed", "eds", "trans"),
        *("vol", "vols", "fig", "figs", "ca", "ph.d", "u.s.a", "min", "max", "mfg", "intl"),
    )
)
"""Abbreviations that may end a sentence."""
_BEGINNING = re.compile(
    r"(?:The|A|An|It|Its|He|His|She|Her|They|Their|We|Our|I|You|This|That|These|Those|There|Here"
    r"|In|On|At|By|For|From|With|To|As|Of|After|Before|During|Since|Until|While|When|If|Because"
    r"|Although|Though|But|And|Or|However|Then|Thus|Today|Some|Many|Most|Each|Both|Several|Other"
    r"|Another|One|According|What|Who|Where|Why|How|Which)(?![\w.\-])"
)
"""Words that often begin a sentence, and seldom a name."""


def sentences(text: str, *, max_characters: int = MAX_SENTENCE_CHARACTERS) -> tuple[str, ...]:
    """The sentences of a text in order, each in one line of at most so many characters.

    Never raises; empty for a text of white space alone.
    """
    return tuple(
        piece
        for block in unwrapped(text)
        for sentence in _sentences(block)
        for piece in pieces(sentence, max_characters)
    )


def unwrapped(text: str) -> Iterator[str]:
    """The text's lines as they are meant: those that were only wrapped are one line again.

    With single spaces, and without blank lines.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    width = max(map(len, lines), default=0)
    block: list[str] = []
    for line in lines:
        if block and not _goes_on(block, line, width):
            yield " ".join(block)
            block = []
        if line:
            block.append(line)
    if block:
        yield " ".join(block)


def _goes_on(block: Sequence[str], line: str, width: int) -> bool:
    """True if the line goes on with the block of lines before it.

    It begins in lower case or with a number in mid-sentence, or its first word had no room there.
    """
    before = block[-1]
    ended = bool(_END_OF_LINE.search(before))
    if not line or before.startswith("#") or _is_item(line, ended or bool(_ITEM.match(block[0]))):
        return False
    if (line[0].islower() or line[0].isdecimal()) and not ended:
        return True
    return width >= _MIN_WRAP_CHARACTERS and len(before) + 1 + len(line.split(" ", 1)[0]) > width


def _is_item(line: str, expected: bool) -> bool:
    """True for a list item or a heading; a number above 1 in mid-sentence begins none."""
    item = _ITEM.match(line)
    return item is not None and (expected or item["number"] in (None, "1"))


def _sentences(block: str) -> Iterator[str]:
    """The sentences of one block."""
    start = 0
    brackets = _BRACKETED.finditer(block)
    bracket = next(brackets, None)
    for end in _END.finditer(block):
        while bracket and bracket.end() < end.end():
            bracket = next(brackets, None)
        inside = bracket and bracket.start() < end.start() and end.end() < bracket.end()
        if not inside and _ends(block, start, end):
            yield block[start : end.end()]
            start = end.end()
    yield block[start:]


def _ends(block: str, start: int, end: re.Match[str]) -> bool:
    """True if the sentence that begins at `start` ends with these marks."""
    place = end.end()
    if place == len(block):
        return True
    if not block[place].isspace():
        last = end["marks"][-1]
        within_number = (
            block[place].isdecimal() and block[end.start() - 1 : end.start()].isdecimal()
        )
        return last in _CLOSE_MARKS and not end["closed"] and not within_number
    following = _NEXT.match(block, place)
    first = following["word"] if following else ""
    if first.islower() or first in (",", ";", ":", "-", "\u2013", "\u2014"):
        return False
    return end["marks"] != "." or _full_stop_ends(block, start, end, following)


def _full_stop_ends(
    block: str, start: int, end: re.Match[str], following: re.Match[str] | None
) -> bool:
    """True if a single full stop before a space is no abbreviation's and no numbering's."""
    place = end.start()
    if place - start <= len(" (xviii") and _NUMBERING.fullmatch(block[start:place].strip()):
        return False
    last = _LAST_WORD.search(block[max(start, place - _MAX_ABBREVIATION) : place])
    word = last[0] if last else ""
    key = word.casefold()
    number_follows = following is not None and following["word"].isdecimal()
    if key in _BEFORE_NAMES or (key in _BEFORE_NUMBERS and number_follows):
        return False
    initial = len(word) == 1 and word.isupper()
    if initial or key in _ABBREVIATIONS or _ACRONYM.fullmatch(word):
        begins = following.start("word") if following else len(block)
        return bool(_BEGINNING.match(block, begins))
    return True
