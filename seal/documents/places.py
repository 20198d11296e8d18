"""Finds the texts that hold an answer, among thousands, by an index of their words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from seal.domains import graders
from seal.domains.affinity import content_words
from seal.domains.words import is_english, normalise, words


def question_key(question: str) -> str:
    """What two questions have in common that are the same but for case and punctuation."""
    return normalise(question) or " ".join(question.split())


class Places:
    """Texts that can be asked which of them hold given words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._indexes: dict[bool, _Index] = {}
        self._content: dict[int, frozenset[str]] = {}

    def holding(self, answer: str) -> frozenset[int]:
        """Indexes of the texts in which the answer stands, as whole words.

        As the grader `contains` has it.
        """
        english = is_english(answer)
        wanted = words(answer, english=english)
        if not wanted:  # blood group "A", "?!": compared as it is
            return frozenset(
                index
                for index, text in enumerate(self._texts)
                if graders.grade("contains", text, (answer,), None) == 1.0
            )
        if english not in self._indexes:
            self._indexes[english] = _Index(words(text, english=english) for text in self._texts)
        return self._indexes[english].holding(wanted)

    def most_alike(self, asked: str, among: Iterable[int] | None) -> int | None:
        """The first of the texts that share most content words with what is asked.

        `among`: indexes; None for all. None if no text shares one.
        """
        own = frozenset(content_words(asked))
        shared = {
            index: len(own & self._content_of(index))
            for index in sorted(range(len(self._texts)) if among is None else among)
        }
        best = max(shared, key=lambda index: shared[index], default=None)
        return best if best is not None and shared[best] else None

    def _content_of(self, index: int) -> frozenset[str]:
        if index not in self._content:
            self._content[index] = frozenset(content_words(self._texts[index]))
        return self._content[index]


class _Index:
    """Which text holds which word."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        self._lines: list[str] = []
        self._of_word: dict[str, set[int]] = defaultdict(set)
        for index, text in enumerate(texts):
            self._lines.append(f" {' '.join(text)} ")
            for word in text:
                self._of_word[word].add(index)

    def holding(self, wanted: Sequence[str]) -> frozenset[int]:
        """Indexes of the texts that hold these words in a row."""
        found = sorted((self._of_word.get(word, set()) for word in set(wanted)), key=len)
        line = f" {' '.join(wanted)} "
        return frozenset(index for index in set.intersection(*found) if line in self._lines[index])
