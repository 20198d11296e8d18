"""Which query a question-answer pair of an edit can serve, by the words of the two questions.

Compared are content words: no articles, question words, auxiliaries, prepositions and pronouns, and
no words of the title, which nearly all questions on a passage share ("Who banned the Brennick
Bell?" and "Who cast the Brennick Bell?" agree in nothing else). The measure is

    affinity = 2 |a & b| / (|a| + |b|)      a, b: content words of the pair's and query's question

with each word as often as it stands there. Two questions without any content word ("Who was Ilse
Tamsford?", "Who is she?") agree if they begin with the same question word. A pair whose answer the
query's own question gives away serves it not: it answers something else. Gold answers are not
looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from seal.domains.graders import token_f1
from seal.domains.words import words

QUESTION_WORDS = ("who", "when", "where", "how", "what", "which", "why")
"""English question words, from the narrowest to the widest."""

STOP_WORDS = frozenset(
    (
        *QUESTION_WORDS,
        *("whom", "whose", "many", "much", "kind", "type", "name", "named", "called"),
        *("is", "are", "was", "were", "be", "been", "being", "do", "does", "did", "done"),
        *("has", "have", "had", "can", "could", "will", "would", "might", "shall"),
        *("should", "must", "of", "in", "on", "at", "by", "to", "from", "for", "with", "into"),
        *("as", "about", "after", "before", "during", "between", "over", "under", "through"),
        *("and", "or", "but", "not", "no", "if", "than", "that", "this", "these", "those"),
        *("there", "it", "its", "he", "him", "his", "she", "her", "they", "them", "their"),
        *("we", "our", "you", "your", "some", "any", "also", "so", "such"),
    )
)
"""Words that say nothing about what a question is about."""

_POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)


def affinity(question: str, answer: str, other: str, *, title: str) -> float:
    """How far a pair of this question and answer can serve the other question, 0 to 1."""
    if not (own := words(question)) or not (asked := words(other)):
        return 0.0
    given = set(content_words(answer))
    if given and given <= set(content_words(other)):
        return 0.0
    shared = content_words(title)
    mine, theirs = (content_words(text, without=shared) for text in (question, other))
    if not mine and not theirs:
        return float(question_word(own) == question_word(asked) != "")
    return token_f1(mine, theirs)


def content_words(text: str, *, without: Iterable[str] = ()) -> tuple[str, ...]:
    """The words of a text in order, without stop words, possessive endings and those given."""
    left_out = frozenset(without)
    return tuple(
        word
        for word in words(_POSSESSIVE.sub("", text))
        if word not in STOP_WORDS and word not in left_out
    )


def question_word(question: Iterable[str]) -> str:
    """The first question word among the words of a question; empty if it has none."""
    return next((word for word in question if word in QUESTION_WORDS), "")
