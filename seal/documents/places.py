"""Finds the texts that hold an answer, among thousands, by an index of their words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

from seal.domains.affinity import content_words
from seal.domains.words import is_english, normalise, words


def question_key(question: str) -> str:
    """What two questions have in common that are the same but for case and punctuation."""
    return normalise(question) or " ".join(question.split())


class Places:
    """Texts that can be asked which of them hold given words.

    Of all their words it keeps those that are asked for: every word of a book with the texts that
    it stands in takes thirty times the book's memory.
    """

    def __init__(self, texts: Sequence[str], *, asked: Collection[str]) -> None:
        """`asked`: all questions and answers that it will be asked for."""
        self._texts, self._asked = texts, asked
        self._indexes: dict[bool, _Index] = {}
        self._content: dict[int, frozenset[str]] = {}

    def holding(self, answer: str) -> frozenset[int]:
        """Indexes of the texts in which the answer stands, as whole words.

        As the grader `contains` has it.
        """
        english = is_english(answer)
        wanted = words(answer, english=english)
        if not wanted:
            return self._holding_as_it_is(answer)
        if english not in self._indexes:
            asked = {word for one in self._asked for word in words(one, english=english)}
            self._indexes[english] = _Index(
                (words(text, english=english) for text in self._texts), asked
            )
        return self._indexes[english].holding(wanted)

    def _holding_as_it_is(self, answer: str) -> frozenset[int]:
        """The same for what normalises to nothing: blood group "A", "?!"."""
        line = _line(answer.casefold().split())
        return frozenset(index for index, text in enumerate(self._as_they_are) if line in text)

    @cached_property
    def _as_they_are(self) -> list[str]:
        return [_line(text.casefold().split()) for text in self._texts]

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
            found = frozenset(content_words(self._texts[index]))
            self._content[index] = found & self._asked_content
        return self._content[index]

    @cached_property
    def _asked_content(self) -> frozenset[str]:
        return frozenset(word for one in self._asked for word in content_words(one))


class _Index:
    """Which text holds which of the words that are asked for."""

    def __init__(self, texts: Iterable[Sequence[str]], asked: Collection[str]) -> None:
        self._lines: list[str] = []
        self._of_word: dict[str, list[int]] = {word: [] for word in asked}
        for index, text in enumerate(texts):
            self._lines.append(_line(text))
            for word in self._of_word.keys() & text:
                self._of_word[word].append(index)

    def holding(self, wanted: Sequence[str]) -> frozenset[int]:
        """Indexes of the texts that hold these words in a row."""
        rarest = min((self._of_word[word] for word in wanted), key=len)
        line = _line(wanted)
        return frozenset(index for index in rarest if line in self._lines[index])


def _line(words: Iterable[str]) -> str:
    """Words in a row, so that a part of it holds whole words."""
    return f" {' '.join(words)} "
