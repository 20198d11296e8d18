"""Is the answer right? Four cheap graders over words as `seal.domains.words` has them.

These are SQuAD's on English text, and characters in scripts without spaces.

    exact      1 if the normalised answer is the gold answer
    contains   1 if the gold answer stands in the answer, as whole words
    f1         overlap of words, 0 to 1
    logprob    the model's own mean log p of the first gold answer, passed through

Of several gold answers the one that fits best counts, as SQuAD has it.
What cannot be graded is None (outcome `ungraded`), never 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from seal.domains.words import is_english, words
from seal.settings import TextGrader

_NEXT_QUESTION = re.compile(r"\n[ \t]{0,8}(?:question|passage)[ \t]{0,2}:", re.IGNORECASE)
_ANSWER_LABEL = re.compile(r"(?:answer[ \t]?:[ \t]*)+", re.IGNORECASE)


def grade(
    grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
) -> float | None:
    """Score of an answer, or None if it cannot be given.

    It cannot without a gold answer, or where a log-probability is missing or not finite.
    """
    if grader == "logprob":
        return logprob if logprob is not None and math.isfinite(logprob) else None
    scores = (_score(grader, answer, gold) for gold in golds)
    return max((score for score in scores if score is not None), default=None)


def _score(grader: TextGrader, answer: str, gold: str) -> float | None:
    answer_words, gold_words = _comparable(answer, gold)
    if not gold_words:
        return None
    if grader == "exact":
        return float(answer_words == gold_words)
    if grader == "contains":
        return float(f" {' '.join(gold_words)} " in f" {' '.join(answer_words)} ")
    return token_f1(answer_words, gold_words)


def _comparable(answer: str, gold: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of both.

    A gold answer that normalises to nothing (blood group "A", "?!") is compared without the
    normalisation.
    """
    english = is_english(gold)
    if gold_words := words(gold, english=english):
        return words(answer, english=english), gold_words
    return tuple(answer.casefold().split()), tuple(gold.casefold().split())


def token_f1(answer_words: Sequence[str], gold_words: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words.

    Each word counts as often as it stands on both sides.
    """
    common = (Counter(answer_words) & Counter(gold_words)).total()
    return 2.0 * common / (len(answer_words) + len(gold_words)) if common else 0.0


def clean_answer(text: str) -> str:
    """What the model answered, in one line.

    Without a leading "Answer:", and without the next question if it went on to ask one.
    """
    answer = " ".join(_NEXT_QUESTION.split(text, maxsplit=1)[0].split())
    label = _ANSWER_LABEL.match(answer)
    return answer[label.end() :] if label else answer
