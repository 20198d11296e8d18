"""Which pairs of an edit help: filters over question-answer pairs, each a setting of its own.

A pair that a small model made up costs more than a missing one, and a third question for the same
answer adds little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from seal.domains import graders
from seal.domains.affinity import content_words
from seal.domains.base import PartExample
from seal.domains.pairs import Pair
from seal.domains.words import normalise
from seal.settings import ExampleSettings


def helpful_pairs(
    pairs: Iterable[tuple[int, Pair]],
    text_of: Callable[[int], str],
    *,
    title: str,
    settings: ExampleSettings,
) -> list[tuple[int, Pair]]:
    """The pairs that the settings let through, in order, each question once.

    With each comes its part; `text_of` gives the text that a part is written on.
    """
    kept: list[tuple[int, Pair]] = []
    questions: set[str] = set()
    of_answer: Counter[tuple[str, str]] = Counter()
    for part, pair in pairs:
        text = text_of(part)
        question = normalise(pair.question) or pair.question
        answered = text, normalise(pair.answer) or pair.answer
        if (
            question in questions
            or (settings.max_per_answer and of_answer[answered] >= settings.max_per_answer)
            or (settings.grounded_answers and not is_grounded(pair, text))
            or (settings.shared_word and not shares_a_word(pair, text, title=title))
        ):
            continue
        questions.add(question)
        of_answer[answered] += 1
        kept.append((part, pair))
    return kept


def is_grounded(pair: Pair, text: str) -> bool:
    """True if the answer stands in the text and not in its own question.

    As whole words after SQuAD's normalisation.
    """
    in_text, in_question = (
        graders.grade("contains", place, (pair.answer,), None) for place in (text, pair.question)
    )
    return in_text == 1.0 and in_question == 0.0


def shares_a_word(pair: Pair, text: str, *, title: str) -> bool:
    """True if question and text have a content word in common beyond title and answer."""
    known = content_words(f"{title} {pair.answer}")
    return not set(content_words(pair.question, without=known)).isdisjoint(content_words(text))


def spread(
    examples: Sequence[PartExample], limit: int, *, parts_per_text: int
) -> tuple[PartExample, ...]:
    """At most `limit` examples, spread over the texts, in their order.

    Every text gives one before any gives two, and not each its first: which part of it comes first
    goes round. Where the last round is too much, the texts that still give stand evenly apart.
    """
    own: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        own.setdefault(example.part // parts_per_text, []).append(place)
    rounds: dict[int, list[int]] = {}
    for text, places in own.items():
        turn = text % len(places)
        for number, place in enumerate(places[turn:] + places[:turn]):
            rounds.setdefault(number, []).append(place)
    kept: list[int] = []
    for _, places in sorted(rounds.items()):
        kept += _evenly(places, limit - len(kept))
    return tuple(examples[place] for place in sorted(kept))


def _evenly(places: Sequence[int], room: int) -> Sequence[int]:
    """All of them, or as many as there is room for, evenly apart."""
    if len(places) <= room:
        return places
    return [places[(2 * number + 1) * len(places) // (2 * room)] for number in range(room)]
