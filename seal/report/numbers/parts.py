"""The parts of an edit, by what each was asked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, takewhile

from seal.domains.base import ABSTAIN, Domain
from seal.part_prompts import PartPromptRecord
from seal.records import (
    ContextRecord,
    EditRecord,
    LearntRow,
    SelectionRecord,
    part_texts,
)
from seal.report.numbers.entries import Fate, PartEntry, PartGroup
from seal.report.numbers.model import CreditedPart
from seal.restem.parts import credited_parts

PARTS_SHOWN = 3
"""Parts of the highest and of the lowest credit that a round shows."""


def part_groups(
    record: ContextRecord, edit: EditRecord, learnt: Sequence[LearntRow]
) -> tuple[PartGroup, ...]:
    """The parts of an edit in groups that were asked on the same; none for an edit of one part.

    `learnt`: the rows of the M-step that are parts of this edit.
    """
    if len(edit.parts) < 2:
        return ()
    used = {example.part for example in edit.examples}
    rows = {row.part: row for row in learnt}
    texts = part_texts(record.parts, edit)
    entries = [
        PartEntry(
            text=text,
            fate="used" if place in used else _left_out(part.text),
            logprob=part.logprob,
            learnt=place in rows,
            credit=rows[place].credit if place in rows else None,
        )
        for place, (text, part) in enumerate(zip(texts, edit.parts, strict=True))
    ]
    return tuple(
        PartGroup(asked_on=asked_on, parts=tuple(entries[place] for place in places))
        for asked_on, places in _by_prompt(record.parts)
    )


def extreme_parts(
    records: Iterable[ContextRecord], selection: SelectionRecord | None, domain: Domain
) -> tuple[tuple[CreditedPart, ...], tuple[CreditedPart, ...]]:
    """The parts of the highest credit, and those of the lowest, by which credit is seen at work."""
    learnt = {
        (edit.context_id, row.part, row.completion)
        for edit in (selection.kept if selection else ())
        for row in edit.rows
    }
    found = sorted(
        (
            (-text.credit, record.title, record.parts[text.part].start + text.text, record, text)
            for record in records
            for text in credited_parts(record, domain)
            if text.credit is not None
        ),
        key=lambda entry: entry[:3],
    )
    shown = [*found[:PARTS_SHOWN], *reversed(found[PARTS_SHOWN:][-PARTS_SHOWN:])]
    parts = tuple(
        CreditedPart(
            title=title,
            asked_on=asked_on(record.parts, text.part),
            text=written,
            credit=-negated,
            learnt=(record.context_id, text.part, text.text) in learnt,
        )
        for negated, title, written, record, text in shown
    )
    return parts[:PARTS_SHOWN], parts[PARTS_SHOWN:]


def asked_on(prompts: Sequence[PartPromptRecord], part: int) -> str:
    """The lines of a part's prompt that other parts' have not; empty where there are no others."""
    if len(prompts) < 2:
        return ""
    return next(asked for asked, places in _by_prompt(prompts) if part in places)


def _left_out(text: str) -> Fate:
    return "abstained" if text.strip() in ("", ABSTAIN.strip()) else "filtered"


def _by_prompt(prompts: Sequence[PartPromptRecord]) -> Iterator[tuple[str, list[int]]]:
    """Neighbours with the same prompt, and the lines of it that other prompts do not have."""
    shown = [
        prompt.messages[-1].content if prompt.messages else prompt.prompt for prompt in prompts
    ]
    least, most = min(shown), max(shown)  # what these two share, all in between share
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False))
    )
    several = least != most
    for text, places in groupby(range(len(shown)), key=lambda place: shown[place]):
        own = text[text.rfind("\n", 0, same) + 1 :] if several else text.strip().rpartition("\n")[2]
        yield own.strip(), list(places)
