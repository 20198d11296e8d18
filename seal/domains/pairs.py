"""Question-answer pairs in what a model wrote, however it marked them up.

Understood are "Question: / Answer:", "Q: / A:", numbers ("Q1:", "1. Question:", "1. What ...?"),
bold and bullets, both on one line, an answer on the line below its label or below its question,
question and answer on one line ("1. What ...? This."), and a first question without a label (the
prompt already ended with one). A question without an answer, an answer without a question, and a
question that came before are dropped. The work is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from seal.domains.examples import has_words, is_heading, plain_line, segments
from seal.domains.words import normalise

_QUESTION = re.compile(
    r"[*_]{0,3}(?:(?:question\s{0,2}\d{0,3}|q\d{0,3})\s?[*_]{0,3}[:\uff1a]|q\d{1,3}[.)])",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"[*_]{0,3}(?:(?:(?:answer|ans)\s{0,2}\d{0,3}|a\d{0,3})\s?[*_]{0,3}[:\uff1a]|a\d{1,3}[.)])",
    re.IGNORECASE,
)
_LABEL_WITHIN_A_LINE = re.compile(
    r" (?=[*_]{0,3}(?:Question|Answer)\s?\d{0,3}[*_]{0,3}:)"
    r"|(?<=[?.!]) (?=[*_]{0,3}[QA]\d{0,3}[*_]{0,3}:)"
)
MAX_QUESTION_CHARACTERS = 1000
"""Lines are added to a question only up to here: prose without a label is no question."""

_INLINE = re.compile(
    r"(?P<question>[^?\uff1f\u061f]{3,}(?:[?\u061f](?=\s)|\uff1f))\s*(?P<answer>\S.*)"
)
"""An unlabelled line that holds a question and its answer; no space follows a full-width mark."""
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")


@dataclass(frozen=True)
class Pair:
    """One question with its answer, each in one line."""

    question: str
    answer: str


def parse_pairs(text: str) -> tuple[Pair, ...]:
    """All complete pairs in order, each question once. Never raises."""
    found: dict[str, Pair] = {}
    for part in segments(text):
        for pair in _pairs(part):
            if has_words(pair.question) and has_words(pair.answer):
                found.setdefault(normalise(pair.question) or pair.question, pair)
    return tuple(found.values())


def inline_pair(line: str) -> Pair | None:
    """The question and the answer behind it, or None if the line is no such pair.

    A line with a second question is none.
    """
    found = _INLINE.fullmatch(" ".join(line.split()))
    if not found or not (has_words(found["question"]) and has_words(found["answer"])):
        return None
    if any(mark in found["answer"] for mark in _QUESTION_MARKS):
        return None
    return Pair(found["question"], found["answer"])


@dataclass
class _Reader:
    """The pair that is being read."""

    question: str = ""
    question_labelled: bool = False
    answer: str = ""
    answer_labelled: bool = False

    @property
    def pair(self) -> Pair:
        """What is read so far, complete or not."""
        return Pair(self.question, self.answer)

    def read_answer(self, content: str) -> None:
        """A labelled answer: it replaces what only looked like one. A second one is not taken."""
        if self.question and not (self.answer and self.answer_labelled):
            self.answer, self.answer_labelled = content, True

    def read_other(self, line: str) -> None:
        """Take a line without a label that begins no question.

        It is the answer if one is awaited, else more of the question.
        """
        if self.answer:
            return
        if self.answer_labelled or self.question.endswith(_QUESTION_MARKS):
            self.answer = line
        elif len(self.question) < MAX_QUESTION_CHARACTERS:
            self.question = f"{self.question} {line}".strip()

    @property
    def awaits_answer(self) -> bool:
        """True after an answer's label with nothing behind it."""
        return self.answer_labelled and not self.answer

    def is_ended_by(self, line: str) -> bool:
        """True if a line without a label is the next question.

        After an answer, a question, or a sentence that is no part of a pair.
        """
        done = bool(self.answer) or self.question.endswith(_QUESTION_MARKS)
        preamble = not self.question_labelled and self.question.endswith((".", "!"))
        return line.endswith(_QUESTION_MARKS) and (done or preamble)


def _pairs(text: str) -> Iterator[Pair]:
    """Pairs of one segment, complete or not."""
    reader = _Reader()
    for line in (
        part for raw in text.splitlines() for part in _LABEL_WITHIN_A_LINE.split(plain_line(raw))
    ):
        if label := _QUESTION.match(line):
            yield reader.pair
            reader = _Reader(_content(line, label), question_labelled=True)
        elif label := _ANSWER.match(line):
            reader.read_answer(_content(line, label))
        elif not line or is_heading(line):
            continue
        elif (inline := _INLINE.fullmatch(line)) and not reader.awaits_answer:
            yield reader.pair
            yield Pair(inline["question"], inline["answer"])
            reader = _Reader()
        elif reader.is_ended_by(line):
            yield reader.pair
            reader = _Reader(line)
        else:
            reader.read_other(line)
    yield reader.pair


def _content(line: str, label: re.Match[str]) -> str:
    """What follows a label."""
    return line[label.end() :].strip(" \t*_")
