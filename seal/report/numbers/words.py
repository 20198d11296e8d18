"""What outcomes and decisions mean, in words for people who see them for the first time."""

from __future__ import annotations

import re
from collections.abc import Mapping

from seal.domains.base import DomainWords
from seal.outcomes import Outcome
from seal.report.numbers.entries import Decision
from seal.restem.select import PartDropReason

OUTCOME_WORDS: Mapping[Outcome, str] = {
    Outcome.OK: "trained, asked and graded",
    Outcome.INVALID: "the edit holds nothing that can be trained on",
    Outcome.TOO_LONG: "a text is longer than the model or the engine takes",
    Outcome.INERT: "the trained adapter changes nothing in what the model says",
    Outcome.DIVERGED: "the numbers of the training, or of the trained model, ran off to infinity",
    Outcome.REFUSED: "the engine could not do it even alone, for example for want of memory",
    Outcome.UNGRADED: "the answers got no grade, for example because the judge was away",
    Outcome.CANCELLED: "it was stopped before its end",
}
"""How an inner loop ended."""

DECISION_WORDS: Mapping[Decision, str] = {
    "kept": "the next policy learns it",
    "not-best": "it helped, but another edit of its passage helped more",
    "eliminated": "others were ahead after the first trainings, so that it was not trained again",
    "preselected": "others of its passage promised more, so that it was not trained on",
    "not-chosen": "chance drew another edit of its passage to be learnt",
    "no-credit": "none of its parts was chosen to be learnt",
    "no-gain": "after training on it the model scored no higher than before",
    "all-equal": "all edits of its passage scored the same: none shows how to write better ones",
    "invalid": OUTCOME_WORDS[Outcome.INVALID],
    "too_long": OUTCOME_WORDS[Outcome.TOO_LONG],
    "inert": OUTCOME_WORDS[Outcome.INERT],
    "diverged": OUTCOME_WORDS[Outcome.DIVERGED],
    "refused": OUTCOME_WORDS[Outcome.REFUSED],
    "ungraded": OUTCOME_WORDS[Outcome.UNGRADED],
    "cancelled": OUTCOME_WORDS[Outcome.CANCELLED],
    "undecided": "the round has not come to its choice yet",
}
"""What became of an edit."""


PART_WORDS: Mapping[PartDropReason, str] = {
    PartDropReason.FILTERED: "it holds nothing that can be trained on, or the filters took it out",
    PartDropReason.TRUNCATED: "it was cut off",
    PartDropReason.UNTRIED: "no training on its edit has a score",
    PartDropReason.TOO_LONG: "with its prompt it is longer than a training takes",
    PartDropReason.REPEATED: "another edit of its passage has the same words for the same prompt",
    PartDropReason.NO_CREDIT: "no question shows that it helps",
    PartDropReason.NEGATIVE: "it took the place of a right answer",
    PartDropReason.NOT_CHOSEN: "others of its passage helped more or, in a control, were drawn",
}
"""Why a part is not learnt, where parts are chosen."""


def name_of(code: str) -> str:
    """An outcome or a decision as a word: too_long -> too long."""
    return code.replace("_", " ")


_CONTEXT = re.compile(r"\b([Pp])assage(?=s?\b)")


def worded(text: str, words: DomainWords) -> str:
    """Prose that is written of passages, with the word that the domain has for a context."""
    return _CONTEXT.sub(
        lambda found: words.context if found[1] == "p" else words.context.capitalize(), text
    )
