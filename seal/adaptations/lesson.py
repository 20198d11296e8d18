"""What an adapter learns: of each passage the best edit, the passage itself, and replayed rows.

A pure function of the rollout's records. Where a reward tells edits apart the best is learnt; where
none does, the first that says something. A row that asks a question of the test is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from seal.documents.places import question_key
from seal.domains.base import Context, Domain, Example
from seal.limits import MAX_ROWS
from seal.records import ContextRecord, EditRecord, LearntRow, Record, RowKind
from seal.restem.reward import mean
from seal.restem.rollout import candidates_of
from seal.restem.select import Candidate
from seal.settings import EvaluationSettings, ExampleSettings


class LessonRow(LearntRow):
    """One row that an adapter learns."""

    kind: RowKind
    context_id: str
    """Passage that it is about."""


class Lesson(Record):
    """What an adapter learns, written once before it is trained."""

    rows: tuple[LessonRow, ...]
    candidates: dict[str, int]
    """The chosen edit of each passage that has one, by the passage's id."""
    left_out: int = 0
    """Examples of chosen edits that ask a question of the test."""
    dropped: int = 0
    """Rows that are longer than a training takes, or more than it takes."""

    @property
    def counts(self) -> dict[RowKind, int]:
        """Rows by kind."""
        return dict(Counter(row.kind for row in self.rows))

    @property
    def sha256(self) -> str:
        """Digest of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def only(self, keep: Callable[[LessonRow], bool]) -> Lesson:
        """The lesson without some rows, which are counted as dropped."""
        rows = tuple(row for row in self.rows if keep(row))
        dropped = self.dropped + len(self.rows) - len(rows)
        return self.model_copy(update={"rows": rows, "dropped": dropped})


def chosen_edit(record: ContextRecord) -> EditRecord | None:
    """The edit of a passage that is learnt; None if none of them has an example.

    That with the best reward, of equal ones as a run's selection has it; without any reward the
    first that says something.
    """
    usable = {edit.candidate: edit for edit in record.edits if edit.examples}
    rewarded = [
        candidate
        for candidate in candidates_of(record)
        if candidate.candidate in usable and candidate.reward is not None
    ]
    finalists = [candidate for candidate in rewarded if not candidate.eliminated]
    if competing := finalists or rewarded:
        return usable[min(competing, key=_rank).candidate]
    return usable[min(usable)] if usable else None


def _rank(candidate: Candidate) -> tuple[float, float, int, int]:
    """Sorts the best first."""
    reward, logprob = candidate.reward, mean((candidate.logprob,))
    return (
        0.0 if reward is None else -round(reward, 9),
        float("inf") if logprob is None else -logprob,
        candidate.characters,
        candidate.candidate,
    )


def make_lesson(
    contexts: Sequence[Context],
    records: Mapping[str, ContextRecord],
    *,
    domain: Domain,
    examples: ExampleSettings,
    held_out: Collection[str],
    replay: Sequence[LessonRow] = (),
) -> Lesson:
    """What is learnt of some passages, in their order, and replayed rows behind it.

    `records` are the rollout's by passage, `held_out` the questions of the test. Each passage is
    there at least once. Where it would be more than a training takes, edits give up rows, each its
    last ones.
    """
    asked = {question_key(question) for question in held_out}
    chosen: dict[str, int] = {}
    edits: list[list[LessonRow]] = []
    passages: list[LessonRow] = []
    left_out = 0
    settings = examples.model_copy(update={"passage_repeats": max(1, examples.passage_repeats)})
    for context in contexts:
        record = records.get(context.context_id)
        if record is not None and (edit := chosen_edit(record)) is not None:
            chosen[context.context_id] = edit.candidate
            own = list(_edit_rows(edit, asked))
            left_out += len(edit.examples) - len(own)
            edits.append(own)
        passages += [
            _row("passage", context.context_id, example)
            for example in domain.passage_examples(context.title, context.text, settings)
        ]
    room = max(0, MAX_ROWS - len(passages) - len(replay))
    kept = _fair(edits, room)
    return Lesson(
        rows=(*(row for own in kept for row in own), *passages, *replay)[:MAX_ROWS],
        candidates=chosen,
        left_out=left_out,
        dropped=sum(map(len, edits)) - sum(map(len, kept)),
    )


def _row(kind: RowKind, context_id: str, example: Example) -> LessonRow:
    return LessonRow(
        kind=kind,
        context_id=context_id,
        part=0,
        prompt=example.prompt,
        completion=example.completion,
    )


def _edit_rows(edit: EditRecord, asked: Collection[str]) -> Iterator[LessonRow]:
    """An edit's examples without those that ask a question of the test."""
    for example in edit.examples:
        if not (example.question and question_key(example.question) in asked):
            yield LessonRow(
                kind="edit",
                context_id=edit.context_id,
                part=example.part,
                prompt=example.prompt,
                completion=example.completion,
            )


def _fair(edits: Sequence[list[LessonRow]], room: int) -> list[list[LessonRow]]:
    """The rows of all edits, each cut to the same length so that all of them fit."""
    if sum(map(len, edits)) <= room:
        return list(edits)
    most = max(map(len, edits))
    while most and sum(min(most, len(own)) for own in edits) > room:
        most -= 1
    return [own[:most] for own in edits]


def replay_rows(
    contexts: Iterable[Context], number: int, *, domain: Domain, evaluation: EvaluationSettings
) -> tuple[LessonRow, ...]:
    """The first `number` questions of other passages, each read with its passage before it.

    Passage after passage, one question of each before the second of any. What is forgotten first is
    how to answer from a text.
    """
    members = list(contexts)
    most = max((len(context.queries) for context in members), default=0)
    asked = [
        (context, context.queries[place])
        for place in range(most)
        for context in members
        if place < len(context.queries)
    ]
    rows = []
    for context, query in asked[:number]:
        prompt = domain.question_prompt(
            replace(query, context=context.text), evaluation.question_format
        )
        rows.append(
            LessonRow(
                kind="replay",
                context_id=context.context_id,
                part=0,
                prompt=prompt.text,
                messages=prompt.messages,
                completion=domain.answer_completion(query.answers[0], evaluation.question_format),
            )
        )
    return tuple(rows)
