"""Text as words that can be compared: SQuAD's normalisation, carried over to every script.

Lower case, no punctuation, no articles, single spaces: on ASCII text this is what SQuAD's own
script does, decimal points apart. Beyond it:

    scripts without spaces   every character of Chinese, Japanese, Thai, Lao, Khmer, Burmese and
                             Tibetan is a word, so "whole words" means the same characters in a row
    forms                    full-width letters and half-width kana are the usual ones (NFKC)
    articles                 are English: text with a letter of another script than Latin keeps all
                             its words, so that vitamin A stays vitamin A in Japanese
    numbers                  without separators of thousands: 1,000 = 1'000 = 1000;
                             a decimal point stays (SQuAD makes 15 of 1.5) and a decimal comma
                             becomes one: 1.000,5 = 1,000.5. A lone separator before three digits
                             is read as in English: 1,500 are thousands and 1.500 is a fraction.
                             Digits of all scripts are 0-9
    currency                 signs go, as $ goes in SQuAD: $5 = 5 = 5 €
    punctuation              of all scripts goes, as ASCII's does in SQuAD: don’t = don't = dont,
                             1990–95 = 1990-95 = 199095. A long dash parts words, as where
                             it stands between two clauses—like here
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

ARTICLES = frozenset({"a", "an", "the"})

_SPACELESS = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana, iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)
_OTHER_LETTER = re.compile(
    r"[^\W\d_\u0000-\u02ff\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f]"
)
"""A letter of another script than Latin."""
_SPACED_THOUSANDS = re.compile(r"(?<=\d)(?<!\d{4})[\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d))")
_WIDE_PUNCTUATION = re.compile(
    r"[\u3001-\u3003\u3008-\u301f\u3030\u303d\u30fb\ufe10-\ufe19\ufe30-\ufe6b\u0f0b]"
    r"|(?<!\d)[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
    r"|[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65](?!\d)"
)
"""What East Asian text has where others have a space. Between digits it is the ASCII sign."""
_LONG_DASH = re.compile("[\u2014\u2015]")
_NUMBER = re.compile(r"(?<![0-9])([0-9]+(?:[.,][0-9]+)+)")
"""From its first digit on: a search from each digit of a long number would be quadratic work."""
_SEPARATORS = re.compile("[.,]")
_DIGIT = re.compile(r"[^\D0-9]")
"""A decimal digit beside 0-9."""
_ARABIC_SEPARATORS = str.maketrans("\u066b\u066c", ".,")
_REMEMBERED_CHARACTERS = 65_536
"""The words of longer texts are not kept: whole books would stay in memory."""


def normalise(text: str) -> str:
    """The words of a text, one space between them. Applied twice it changes nothing more."""
    return " ".join(words(text))


def is_english(text: str) -> bool:
    """True if nothing says otherwise: no letter of another script than Latin."""
    return not _OTHER_LETTER.search(unicodedata.normalize("NFKC", text))


def words(text: str, *, english: bool | None = None) -> tuple[str, ...]:
    """The words of a text; English loses its articles.

    `english`: None asks the text itself; two texts that are compared have to get the same.
    """
    english = is_english(text) if english is None else english
    if len(text) > _REMEMBERED_CHARACTERS:
        return _found_words(text, english)
    return _remembered_words(text, english)


def distinct_share(texts: Iterable[str], n: int) -> float | None:
    """Different n-grams of words among all of the texts (distinct-n), None if there is none."""
    grams = [
        tuple(found[place : place + n])
        for found in map(words, texts)
        for place in range(len(found) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else None


@lru_cache(maxsize=256)  # four graders and many gold answers look at the same answer
def _remembered_words(text: str, english: bool) -> tuple[str, ...]:
    return _found_words(text, english)


def _found_words(text: str, english: bool) -> tuple[str, ...]:
    bare = _bare(text)
    while (again := _bare(bare)) != bare:  # what was deleted may have brought digits together
        bare = again
    return tuple(
        part
        for word in bare.split()
        for part in split_spaceless(word)
        if not (english and part in ARTICLES)
    )


def split_spaceless(word: str) -> Iterator[str]:
    """Characters of scripts without spaces one by one, with their marks; other runs whole."""
    if not _SPACELESS.search(word):
        yield word
        return
    run = ""
    for character in word:
        is_mark = unicodedata.category(character).startswith("M")
        if run and (is_mark or not (_SPACELESS.match(character) or _SPACELESS.match(run))):
            run += character
        else:
            if run:
                yield run
            run = character
    yield run


def _bare(text: str) -> str:
    """Lower case without punctuation and currency signs, numbers written in one way."""
    text = _WIDE_PUNCTUATION.sub(" ", _SPACED_THOUSANDS.sub("", text))
    text = _LONG_DASH.sub(" ", text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not text.isascii():
        text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
        text = text.translate(_ARABIC_SEPARATORS)
    parts = _NUMBER.split(text)  # every second one is a number
    parts[1::2] = map(_plain_number, parts[1::2])
    parts[0::2] = (part.translate(_SPOKEN) for part in parts[0::2])
    return unicodedata.normalize("NFC", " ".join("".join(parts).split()))


class _Spoken(dict[int, int | None]):
    """What `str.translate` makes of each character: nothing of a silent one.

    That is punctuation, as SQuAD has it and of all scripts, and currency signs.
    """

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        if character.isascii():
            silent = character in string.punctuation
        else:
            category = unicodedata.category(character)
            silent = category.startswith("P") or category == "Sc"
        self[code] = None if silent else code
        return self[code]


_SPOKEN = _Spoken()


def _plain_number(text: str) -> str:
    """A number with separators as digits with at most one decimal point.

    What is no such number (a date, a list, a version) loses its separators, as in SQuAD.
    """
    head, *groups = _SEPARATORS.split(text)
    marks = _SEPARATORS.findall(text)
    if len(marks) == 1 and not (marks == [","] and _parts_thousands(head, groups)):
        return f"{head}.{groups[0]}"
    if marks.count(marks[-1]) == 1 < len(marks) and _parts_thousands(head, groups[:-1]):
        return f"{head}{''.join(groups[:-1])}.{groups[-1]}"
    return head + "".join(groups)


def _parts_thousands(head: str, groups: list[str]) -> bool:
    """True for 1-3 digits and groups of three; of two in between, as in India."""
    return (
        len(head) <= 3
        and head[0] != "0"
        and len(groups[-1]) == 3
        and all(len(group) in (2, 3) for group in groups)
    )
