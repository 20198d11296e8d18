"""Which of the questions that a model made on a passage are kept, and which of them are the test.

Kept is what the model answers the same way again with the text before it and not without it: its
answer is then the passage's, and not one that it knew before or made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from seal.documents.places import question_key
from seal.domains.graders import grade
from seal.records import QuestionRole, QuestionsRecord
from seal.restem.seeds import derive_seed

SAME_ANSWER_F1 = 0.6
"""Answers that share so many of their words, as F1, are the same."""


class MadeDropReason(StrEnum):
    """Why a question is not kept."""

    REPEATED = "repeated"
    """The passage has been asked it before, or another one with the same answer."""
    UNGRADED = "ungraded"
    """The model gave no answer that could be compared."""
    UNSURE = "unsure"
    """Asked again with its text, the model answers something else."""
    KNOWN = "known"
    """The model answers it without the passage."""
    SPARE = "spare"
    """The passage has enough others."""


@dataclass(frozen=True)
class MadeQuestion:
    """A question that the model wrote on a passage, and what it answers to it."""

    question: str
    answer: str
    """As it was written with the question."""
    again: str | None
    """With the text that it was written on before it; None without a graded answer."""
    closed: str | None
    """Without the passage; None without a graded answer."""


@dataclass(frozen=True)
class MadeQuestions:
    """The questions of a passage."""

    kept: tuple[tuple[MadeQuestion, QuestionRole], ...]
    """In their order, with what they are for."""
    dropped: dict[str, int]
    """The others by reason."""


def keep_questions(
    made: Sequence[MadeQuestion], *, most: int, held_out_share: float, seed: int
) -> MadeQuestions:
    """At most `most` of a passage's questions, spread over it; a share of them is the test.

    Of two or more there is at least one on each side. Of those with the same answer one is kept: a
    model that writes twice on a sentence asks the same in other words, and what edits are chosen by
    would be the test as well.
    """
    dropped: Counter[str] = Counter()
    asked: set[str] = set()
    answered: set[str] = set()
    good = []
    for one in made:
        key, answer = question_key(one.question), question_key(one.answer)
        reason = MadeDropReason.REPEATED if key in asked else why_dropped(one)
        asked.add(key)
        if reason is None and answer in answered:
            reason = MadeDropReason.REPEATED
        if reason is None:
            answered.add(answer)
            good.append(one)
        else:
            dropped[str(reason)] += 1
    kept = _spread(good, most)
    if spare := len(good) - len(kept):
        dropped[str(MadeDropReason.SPARE)] = spare
    test = _test(kept, held_out_share, seed)
    roles: list[tuple[MadeQuestion, QuestionRole]] = [
        (one, "held-out" if one in test else "reward") for one in kept
    ]
    return MadeQuestions(tuple(roles), dict(sorted(dropped.items())))


def with_a_test(records: Sequence[QuestionsRecord]) -> tuple[QuestionsRecord, ...]:
    """The same questions, of which at least one is the test, if there are any.

    Of passages with one question each none may have been drawn; without a test nothing could be
    judged in the end, whatever it has cost.
    """
    asked = [place for place, record in enumerate(records) if record.kept]
    if not asked or any(one.role == "held-out" for record in records for one in record.kept):
        return tuple(records)
    place = asked[0]
    first, *others = records[place].kept
    kept = (first.model_copy(update={"role": "held-out"}), *others)
    test = records[place].model_copy(update={"kept": kept})
    return (*records[:place], test, *records[place + 1 :])


def why_dropped(made: MadeQuestion) -> MadeDropReason | None:
    """Why the model's own answers speak against a question; None if they do not."""
    if made.again is None or made.closed is None:
        return MadeDropReason.UNGRADED
    if not is_same_answer(made.again, made.answer):
        return MadeDropReason.UNSURE
    return MadeDropReason.KNOWN if is_same_answer(made.closed, made.answer) else None


def is_same_answer(answer: str, written: str) -> bool:
    """Whether an answer comes to the one that was written with the question.

    Most of their words are the same, or one holds the other: small models answer in sentences, or
    with less.
    """
    scores = (
        grade("f1", answer, (written,), None),
        grade("contains", answer, (written,), None),
        grade("contains", written, (answer,), None),
    )
    return any(score is not None and score >= SAME_ANSWER_F1 for score in scores)


def _spread(good: Sequence[MadeQuestion], most: int) -> list[MadeQuestion]:
    """At most `most` of them, evenly apart."""
    if len(good) <= most:
        return list(good)
    return [good[(2 * number + 1) * len(good) // (2 * most)] for number in range(most)]


def _test(kept: Sequence[MadeQuestion], share: float, seed: int) -> set[MadeQuestion]:
    """The questions that are held out."""
    drawn = sorted(kept, key=lambda one: derive_seed(seed, question_key(one.question)))
    if len(kept) == 1:
        # So that of many passages with one question each the share is about right
        chance = derive_seed(seed, "alone") / 2**63
        return set(drawn) if chance < share else set()
    return set(drawn[: min(len(kept) - 1, max(1, round(share * len(kept))))])
