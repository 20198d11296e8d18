"""Passages with their questions, from the rows of a file to contexts.

Rows of the SQuAD shapes that hold one passage (case, spacing and punctuation apart) become one
context, with the text and title of the first; in SEAL's own shape, where a passage has all its
questions beside it, a second one is a mistake and is refused.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile

from seal.dataset_rows import SHAPES, Passage, Place, Question, read_passages
from seal.domains.base import Context, LoadedContexts, Query
from seal.domains.words import split_spaceless
from seal.errors import InvalidInput
from seal.limits import MAX_QUESTIONS

_MAX_SLUG_CHARACTERS = 48
_ID_DIGITS = 24
"""Hex digits of a passage's digest in its id: 96 bits, so that a million passages do not collide
by chance, while the id still fits names of files."""
_GAP = re.compile(r"[\W_]+")


def read_groups(
    values: Iterable[tuple[Place, object]], *, source: str, need_questions: bool = True
) -> list[list[Passage]]:
    """The rows of a file by passage: all that one passage's rows hold stands together.

    In the order of their first rows. `need_questions` is as in `read_passages`. Raises InvalidInput
    if there is none, for a bad row, and for a passage that stands twice where it may not.
    """
    passages = [
        passage
        for place, value in values
        for passage in read_passages(place, value, need_questions=need_questions)
    ]
    if not passages:
        raise InvalidInput(f"{source} holds no passage", remedy=SHAPES, source=source)
    return _grouped(passages)


def contexts_of(groups: list[list[Passage]]) -> LoadedContexts:
    """The contexts of passages, those without an answered question left out and counted."""
    contexts = tuple(_context(group) for group in groups if any(part.questions for part in group))
    return LoadedContexts(
        contexts=contexts,
        unanswerable=sum(part.unanswerable for group in groups for part in group),
        emptied=len(groups) - len(contexts),
    )


def check_questions(group: Sequence[Passage]) -> None:
    """Refuse a passage, by its first row, whose rows hold too many questions together."""
    number = sum(len(part.questions) for part in group)
    if number > MAX_QUESTIONS:
        problem = f"holds {number} questions, the limit is {MAX_QUESTIONS}"
        raise group[0].place.refuse("", problem, "keep the best ones")


def context_id(title: str, text: str) -> str:
    """Id of a passage: its title in a-z, 0-9 and -, and 24 hex digits of its digest.

    The same passage has it in every file.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:_MAX_SLUG_CHARACTERS].strip("-")
    return f"{slug or 'context'}-{passage_digest(text)[:_ID_DIGITS]}"


@lru_cache(maxsize=1024)  # rows of one passage follow one another
def passage_digest(text: str) -> str:
    """sha256 of a passage's letters and digits in lower case, word by word.

    Character by character in scripts without spaces. It is that of the bare text if it has none.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        words = _GAP.sub(" ", folded).split()
    else:
        spaced = _GAP.sub(_marks_or_space, folded).split()
        words = [part for word in spaced for part in split_spaceless(word)]
    return hashlib.sha256((" ".join(words) or folded).encode()).hexdigest()


def _marks_or_space(gap: re.Match[str]) -> str:
    """What stands between letters: marks of the letter before (many scripts' vowels), a space."""
    marks = "".join(takewhile(_is_mark, gap[0])) if gap.start() else ""
    return marks if len(marks) == len(gap[0]) else f"{marks} "


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _grouped(passages: Iterable[Passage]) -> list[list[Passage]]:
    """Passages of one text together, in the order of their first."""
    groups: dict[str, list[Passage]] = {}
    for passage in passages:
        group = groups.setdefault(passage_digest(passage.text), [])
        if group and not (passage.may_recur and group[0].may_recur):
            raise passage.place.refuse(
                "context",
                f"is the passage of {group[0].place.words} again",
                "keep one of the two rows, with the questions of both",
            )
        group.append(passage)
    return list(groups.values())


def _context(group: list[Passage]) -> Context:
    """One context of all that belongs to a passage."""
    check_questions(group)
    first = group[0]
    questions: list[Question] = [question for part in group for question in part.questions]
    identifier = context_id(first.title, first.text)
    queries = tuple(
        Query(f"{identifier}/{index}", question.text, question.answers)
        for index, question in enumerate(questions)
    )
    return Context(context_id=identifier, title=first.title, text=first.text, queries=queries)
