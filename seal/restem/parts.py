"""The credit of every text that a context's candidates have for its part prompts.

That of `seal.restem.credit`, with the domain's affinity, and with the word F1 of a pair's answer
and what the adapted model said as agreement. One text for one part prompt counts once, however many
candidates have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from seal.domains.base import Domain, Query
from seal.outcomes import Outcome
from seal.records import AnswerRecord, ContextRecord, EditRecord, ExampleRecord
from seal.restem.credit import Trial, credit_parts


@dataclass(frozen=True, kw_only=True)
class PartText:
    """One text for one part prompt of a context."""

    part: int
    text: str
    candidates: tuple[int, ...]
    """Who was trained on it, in order."""
    credit: float | None
    """None where no query says anything about it."""
    logprob: float | None
    """Mean log p of its tokens, of the first candidate, nats; breaks ties."""


def credits_of(records: Iterable[ContextRecord], domain: Domain) -> dict[str, tuple[PartText, ...]]:
    """The texts of every context with their credit, by context."""
    return {record.context_id: credited_parts(record, domain) for record in records}


def credited_parts(record: ContextRecord, domain: Domain) -> tuple[PartText, ...]:
    """All texts of a context that some candidate's examples came from, with their credit."""
    examples = {
        (edit.candidate, part, edit.parts[part].text): own
        for edit in record.edits
        for part, own in _examples_by_part(edit).items()
    }
    holders: dict[tuple[int, str], list[int]] = {}
    for candidate, part, text in sorted(examples):
        holders.setdefault((part, text), []).append(candidate)
    columns = list(holders)
    credits = credit_parts(
        list(_trials(record, domain, examples, columns)),
        parts=len(columns),
        baseline_Q=[answer.score for answer in record.baseline.answers],
    )
    edits = {edit.candidate: edit for edit in record.edits}
    return tuple(
        PartText(
            part=part,
            text=text,
            candidates=tuple(holders[part, text]),
            credit=credit,
            logprob=edits[holders[part, text][0]].parts[part].logprob,
        )
        for (part, text), credit in zip(columns, credits, strict=True)
    )


def _examples_by_part(edit: EditRecord) -> dict[int, list[ExampleRecord]]:
    parts: dict[int, list[ExampleRecord]] = {}
    for example in edit.examples:
        parts.setdefault(example.part, []).append(example)
    return parts


def _trials(
    record: ContextRecord,
    domain: Domain,
    examples: Mapping[tuple[int, int, str], Sequence[ExampleRecord]],
    columns: Sequence[tuple[int, str]],
) -> Iterator[Trial]:
    """The inner loops that were scored, each with what its parts answer for."""
    asked = record.baseline.answers

    @cache  # a pair stands in many loops, and few answers are given
    def affinity_Q(question: str, answer: str) -> list[float]:
        return [
            domain.affinity(question, answer, _query(each), title=record.title) for each in asked
        ]

    @cache
    def agreement(said: str, answer: str) -> float:
        return domain.grade("f1", said, (answer,), None) or 0.0

    def responsibility_Q(
        example: ExampleRecord, answers: Sequence[AnswerRecord | None]
    ) -> list[float]:
        affinities = affinity_Q(example.question, example.answer)
        return [
            affinity * agreement(answer.answer, example.answer)
            if affinity and answer and example.answer
            else 0.0
            for affinity, answer in zip(affinities, answers, strict=True)
        ]

    for loop in record.inner_loops:
        if loop.kind != "edit" or loop.outcome is not Outcome.OK or loop.evaluation is None:
            continue
        given = {answer.query_id: answer for answer in loop.evaluation.answers}
        answers = [given.get(answer.query_id) for answer in asked]
        held = [
            (index, examples[loop.candidate, *column])
            for index, column in enumerate(columns)
            if (loop.candidate, *column) in examples
        ]
        responsibility = [
            np.max([responsibility_Q(example, answers) for example in own], axis=0)
            for _, own in held
        ]
        yield Trial(
            candidate=loop.candidate,
            repeat=loop.repeat,
            parts=tuple(index for index, _ in held),
            responsibility_P_Q=np.array(responsibility).reshape(len(held), len(asked)),
            scores_Q=tuple(answer.score if answer else None for answer in answers),
        )


def _query(answer: AnswerRecord) -> Query:
    return Query(query_id=answer.query_id, question=answer.question, answers=answer.golds)
