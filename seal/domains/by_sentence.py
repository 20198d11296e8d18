"""Edits in parts: one short question-answer pair for each sentence and question word.

A small model that is asked for all pairs on a passage at once writes a few; asked for one pair on
one sentence that begins with a given word it writes many more, and can be told which helped. The
parts of a text stand one after another, in the order of `STARTS`. What is the same for all passages
comes first in a prompt, then the title and the sentence, then the word: the engine computes what
prompts share once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from seal.domains.affinity import QUESTION_WORDS, content_words
from seal.domains.base import Context, PartPrompt
from seal.domains.graders import clean_answer, grade
from seal.domains.pairs import Pair, inline_pair
from seal.domains.prompts import SENTENCE_INSTRUCTION, WORKED_SENTENCES
from seal.domains.sentences import sentences
from seal.domains.words import words
from seal.limits import MAX_PART_TEXTS
from seal.prompts import Message, Prompt
from seal.settings import PromptFormat

STARTS = tuple(word.capitalize() for word in QUESTION_WORDS)
"""The word that each part of a text begins with."""

MIN_WORDS = 3
"""A sentence of fewer words, such as a heading, goes to the one behind it."""

_PREPOSITIONS = (
    "in|on|at|by|for|from|with|to|of|during|under|into|through|about|after|before|against|between"
    "|among|within|behind|near|over"
)
_AUXILIARIES = (
    "is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|might|many|much"
)
_WORD = "|".join((*QUESTION_WORDS, "whom"))
_FRONTED = re.compile(
    rf"(?P<preposition>{_PREPOSITIONS}) (?P<word>{_WORD})(?P<rest> [^?]+)\?", re.IGNORECASE
)
_INTRODUCED = re.compile(
    rf"(?P<opening>[^?]+), (?P<word>{_WORD})(?P<rest> [^,?]+)\?"
    rf"|(?P<circumstance>(?:{_PREPOSITIONS}) [^,?]+) (?P<asked>{_WORD})"
    rf"(?P<after> (?:{_AUXILIARIES}) [^,?]+)\?",
    re.IGNORECASE,
)
_ROUGHLY = re.compile(
    r"(?:about|approximately|around|roughly|nearly|exactly) (?=how )", re.IGNORECASE
)
_OPENED = re.compile(rf"(?P<word>{_WORD})\b(?P<rest>.+)", re.IGNORECASE)


@lru_cache(maxsize=64)  # every candidate of a context asks for the same
def part_texts(passage: str) -> tuple[str, ...]:
    """What gets parts of its own: the passage's sentences, at least one text.

    Short sentences go to the next one. Where there are more than `MAX_PART_TEXTS`, neighbours are
    joined to that many stretches of about the same length: nothing of the passage is dropped.
    """
    found = sentences(passage)
    texts = list(_with_enough_words(found)) or list(found[:1]) or [""]
    if len(texts) <= MAX_PART_TEXTS:
        return tuple(texts)
    total = sum(map(len, texts))
    stretches: list[list[str]] = [[] for _ in range(MAX_PART_TEXTS)]
    before = 0
    for text in texts:
        stretches[before * MAX_PART_TEXTS // total].append(text)
        before += len(text)
    return tuple(" ".join(stretch) for stretch in stretches if stretch)


def _with_enough_words(found: Sequence[str]) -> Iterator[str]:
    """The sentences, each short one joined to the next; what is left at the end to the last."""
    kept: list[str] = []
    waiting: list[str] = []
    number = 0
    for sentence in found:
        waiting.append(sentence)
        number += len(words(sentence))
        if number >= MIN_WORDS:
            kept.append(" ".join(waiting))
            waiting, number = [], 0
    if waiting and (kept or number):
        kept[-1:] = [" ".join((*kept[-1:], *waiting))]
    return iter(kept)


def part_prompts(
    title: str, passage: str, format: PromptFormat, *, trained: bool
) -> tuple[PartPrompt, ...]:
    """The prompt of each text and start; with worked examples unless the policy is trained."""
    prompts = (_prompt(title, text, format, trained=trained) for text in part_texts(passage))
    return tuple(PartPrompt(prompt, start) for prompt in prompts for start in STARTS)


def _prompt(title: str, text: str, format: PromptFormat, *, trained: bool) -> Prompt:
    """Ask for a pair on one text; the start comes directly behind."""
    asked = _shown(title, text)
    if format == "base":
        worked = "".join(f"{_shown(*shown)}\n{pair}\n\n" for *shown, pair in WORKED_SENTENCES)
        return Prompt(text=f"{'' if trained else worked}{asked}\n", stop=("\n",))
    turns: list[Message] = []
    for title_shown, text_shown, pair in () if trained else WORKED_SENTENCES:
        turns.append(Message("user", _shown(title_shown, text_shown)))
        turns.append(Message("assistant", pair))
    if turns:
        turns[0] = Message("user", f"{SENTENCE_INSTRUCTION}\n\n{turns[0].content}")
    return Prompt(messages=(*turns, Message("user", asked)), stop=("\n",))


def _shown(title: str, text: str) -> str:
    """A text under its title, as worked examples and the last turn have it."""
    heading = f"Title: {one_line}\n" if (one_line := " ".join(title.split())) else ""
    return f"{heading}Text: {text}"


def parse_part(text: str) -> Pair | None:
    """The pair in what was written for a part, or None if it abstains or is no pair."""
    pair = inline_pair(text.lstrip().partition("\n")[0])
    if pair is None or not (answer := clean_answer(pair.answer)):
        return None
    return Pair(pair.question, answer)


def gold_parts(context: Context, format: PromptFormat) -> tuple[tuple[PartPrompt, str], ...]:
    """Each gold pair at the text and start that it fits, with what should follow the start.

    The text holds an answer and shares most content words with the question beyond the title; the
    start is the question's own word. Pairs that fit nowhere are left out.
    """
    parts = part_prompts(context.title, context.text, format, trained=True)
    texts = part_texts(context.text)
    words_of = [frozenset(content_words(text)) for text in texts]
    found = []
    for query in context.queries:
        asked = content_words(query.question, without=content_words(context.title))
        place = _fitting_text(texts, words_of, frozenset(asked), query.answers)
        opened = opened_by_its_word(query.question)
        if place is None or opened is None:
            continue
        index, answer = place
        start, rest = opened
        part = parts[index * len(STARTS) + STARTS.index(start)]
        found.append((part, f"{rest} {' '.join(answer.split())}"))
    return tuple(found)


def _fitting_text(
    texts: Sequence[str],
    words_of: Sequence[frozenset[str]],
    asked: frozenset[str],
    answers: Sequence[str],
) -> tuple[int, str] | None:
    """Index of the text that a gold pair is on, and the first answer that stands in it.

    `words_of` are the texts' content words, `asked` those of the question.
    """
    for answer in answers:
        holding = [
            index
            for index, text in enumerate(texts)
            if grade("contains", text, (answer,), None) == 1.0
        ]
        if holding:
            return max(holding, key=lambda index: len(asked & words_of[index])), answer
    return None


def opened_by_its_word(question: str) -> tuple[str, str] | None:
    """A question as its start and the rest, for example ("Who", " cast the bell?").

    A question word behind a preposition or an introduction is brought to the front: "In which year
    was it cast?" becomes "Which year was it cast in?" and "After the fire, who came?" becomes "Who
    came after the fire?". None for a question without such a word, and for "Whose".
    """
    question = _ROUGHLY.sub("", " ".join(question.split()), count=1)
    if opened := _OPENED.fullmatch(question):
        word, rest = opened["word"], opened["rest"]
    elif fronted := _FRONTED.fullmatch(question):
        word, rest = fronted["word"], f"{fronted['rest']} {fronted['preposition'].lower()}?"
    elif introduced := _INTRODUCED.fullmatch(question):
        word = introduced["word"] or introduced["asked"]
        opening = introduced["opening"] or introduced["circumstance"]
        rest = f"{introduced['rest'] or introduced['after']} {_lowered(opening)}?"
    else:
        return None
    start = "Who" if word.casefold() == "whom" else word.capitalize()
    return start, rest if rest.endswith("?") else f"{rest.rstrip(' .')}?"


def _lowered(opening: str) -> str:
    """An introduction as it stands within a sentence: a common first word in lower case."""
    first, space, rest = opening.partition(" ")
    return opening if content_words(first) else f"{first.lower()}{space}{rest}"
