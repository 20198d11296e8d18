"""Which settings belong to which domain: what a domain cannot do is refused by its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from seal.errors import InvalidInput
from seal.settings.edits import PromptFamily
from seal.settings.evaluation import GraderName, QuestionFormat

DomainName = Literal["knowledge", "arc"]


@dataclass(frozen=True, kw_only=True)
class DomainOptions:
    """The choices that a domain has. In each the first is the one to name in a remedy."""

    families: tuple[PromptFamily, ...]
    """Prompt families of its edits."""
    question_formats: tuple[QuestionFormat, ...]
    """Ways to ask its questions."""
    graders: tuple[GraderName, ...]
    """What its reward can be the mean of."""
    voted_graders: tuple[GraderName, ...]
    """Those that grade what the answers to a question asked in several ways agree on; none where
    there is one way to ask."""
    whole_answers: bool
    """Whether an answer counts only as a whole, so that a bound of its tokens below a gold answer
    leaves a question that nobody can answer."""
    learns_text: bool
    """Whether a context is a text that can be trained on by itself: then its bounds are the passage
    alone, the gold questions and the open book, and adaptations learn documents. Else what is to be
    learnt stands with every question, and its bounds are edits that are given."""


DOMAIN_OPTIONS: Mapping[DomainName, DomainOptions] = MappingProxyType(
    {
        "knowledge": DomainOptions(
            families=(
                "implications",
                "implications-long",
                "implications-very-long",
                "rewrite",
                "self-qa",
                "self-qa-by-sentence",
                "none",
                "chain-of-thought",
            ),
            question_formats=("plain", "few-shot", "reading", "chat"),
            graders=("contains", "exact", "f1", "logprob", "judge"),
            voted_graders=(),
            whole_answers=False,
            learns_text=True,
        ),
        "arc": DomainOptions(
            families=("train-settings",),
            question_formats=("digits", "letters", "spaced"),
            graders=("grid", "logprob"),
            voted_graders=("grid",),
            whole_answers=True,
            learns_text=False,
        ),
    }
)


def check_choice(domain: DomainName, value: str, choices: tuple[str, ...], *, field: str) -> None:
    """Refuse a setting that is another domain's. Raises InvalidInput naming the field."""
    if value not in choices:
        raise InvalidInput(
            f"{value!r} is of another domain than {domain!r}",
            field=field,
            remedy=f"use one of {', '.join(choices)}, or set domain to the one that has it",
        )


def check_votes(domain: DomainName, votes: int, grader: GraderName, *, field: str) -> None:
    """Refuse votes that would cost and decide nothing. Raises InvalidInput naming the field."""
    voted = DOMAIN_OPTIONS[domain].voted_graders
    if votes <= 1 or grader in voted:
        return
    if voted:
        problem = f"grader {grader!r} looks at no answer, so that there is nothing to vote on"
        remedy = f"set it to 1, or the grader to {' or '.join(voted)}"
    else:
        problem = f"questions of domain {domain!r} can be asked in one way only"
        remedy = "set it to 1"
    raise InvalidInput(problem, field=field, remedy=remedy)


def check_bounds(
    domain: DomainName, *, of_text: Mapping[str, bool], of_given_edits: Mapping[str, bool]
) -> None:
    """Refuse what a domain cannot measure beside its edits, by its field: which of them are set.

    Raises:
        InvalidInput: naming the first field.
    """
    learns_text = DOMAIN_OPTIONS[domain].learns_text
    for field, is_set in (of_given_edits if learns_text else of_text).items():
        if is_set:
            raise InvalidInput(
                f"domain {domain!r} has {'texts to learn' if learns_text else 'no text to learn'}, "
                f"and this is for one that has {'none' if learns_text else 'some'}",
                field=field,
                remedy="leave it out, or empty"
                if field.startswith("data.")
                else "leave it out, or set domain to another one",
            )
