"""Passages in detail.

The edits with their fate and training examples, and the answers before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from seal.records import (
    AnswerRecord,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopKind,
    LearntRow,
    edit_text,
)
from seal.report.numbers.entries import (
    AnswerEntry,
    Decision,
    EditEntry,
    PassageEntry,
    PassageGroup,
    QuestionEntry,
)
from seal.report.numbers.model import CEILING_KINDS, PASSAGE_KINDS, Metric, right_of
from seal.report.numbers.parts import part_groups
from seal.report.numbers.scores import answer_score, loops_of
from seal.report.numbers.source import RunFiles, Stage
from seal.restem.part_selection import dropped_candidates
from seal.restem.rollout import candidates_of, control_seed_of, divide
from seal.restem.select import Candidate, DropReason

MAX_EXAMPLE_CHARACTERS = 40_000
"""Of one edit's examples in the report: a training set of puzzles has a hundred times as many."""
BEFORE = "before"
"""Key of the answers of the student without an inner adapter."""


def candidate_key(candidate: int) -> str:
    """Key of the answers of one candidate."""
    return f"candidate-{candidate}"


def decisions(files: RunFiles, stage: Stage) -> dict[str, dict[int, Decision]]:
    """What the selection did with each candidate, and why, by passage and candidate.

    While it is not made, graded ones are undecided.
    """
    if files.spec.improve.credit == "part":
        return _decisions_by_part(files, stage)
    selection = files.selections.get(stage.round)
    kept = [(edit.context_id, edit.candidate) for edit in (selection.kept if selection else ())]
    chosen = divide(
        stage.records,
        keep_per_context=files.spec.improve.keep_per_context,
        too_long=selection.too_long if selection else (),
        control_seed=control_seed_of(files.spec, stage.round),
    )
    fates: dict[str, dict[int, Decision]] = {record.context_id: {} for record in stage.records}
    for graded in chosen.kept:
        fates[graded.candidate.context_id][graded.candidate.candidate] = "undecided"
    for dropped in chosen.dropped:
        undecided = selection is None and dropped.candidate.reward is not None
        fates[dropped.candidate.context_id][dropped.candidate.candidate] = (
            "undecided" if undecided else _DECISIONS[dropped.reason]
        )
    for context_id, candidate in kept:
        fates.setdefault(context_id, {})[candidate] = "kept"
    return fates


def _decisions_by_part(files: RunFiles, stage: Stage) -> dict[str, dict[int, Decision]]:
    """The same where parts are chosen: an edit is kept if any of its parts is."""
    selection = files.selections.get(stage.round)
    kept: dict[str, list[int]] = {}
    for edit in selection.kept if selection else ():
        kept.setdefault(edit.context_id, []).append(edit.candidate)
    fates: dict[str, dict[int, Decision]] = {}
    for record in stage.records:
        chosen = kept.get(record.context_id, [])
        of_record = fates[record.context_id] = {}
        for candidate in chosen:
            of_record[candidate] = "kept"
        for candidate, reason in dropped_candidates(record, chosen).items():
            undecided = selection is None and reason is DropReason.NO_CREDIT
            of_record[candidate] = "undecided" if undecided else _DECISIONS[reason]
    return fates


_DECISIONS: Mapping[DropReason, Decision] = {
    DropReason.INVALID: "invalid",
    DropReason.TOO_LONG: "too_long",
    DropReason.INERT: "inert",
    DropReason.DIVERGED: "diverged",
    DropReason.REFUSED: "refused",
    DropReason.UNGRADED: "ungraded",
    DropReason.CANCELLED: "cancelled",
    DropReason.ALL_EQUAL: "all-equal",
    DropReason.NO_GAIN: "no-gain",
    DropReason.NOT_BEST: "not-best",
    DropReason.ELIMINATED: "eliminated",
    DropReason.PRESELECTED: "preselected",
    DropReason.NOT_CHOSEN: "not-chosen",
    DropReason.NO_CREDIT: "no-credit",
}


def rollout_details(files: RunFiles, stage: Stage, *, limit: int) -> PassageGroup:
    """The first passages of a rollout: all candidates, and the answers before and after each."""
    fates = decisions(files, stage)
    selection = files.selections.get(stage.round)
    kept = selection.kept if selection else ()
    learnt = {(edit.context_id, edit.candidate): edit.rows for edit in kept}
    passages = [
        _rollout_passage(files, record, fates[record.context_id], learnt)
        for record in stage.records[:limit]
    ]
    return PassageGroup(
        round=stage.round, passages=tuple(passages), passages_total=len(stage.records)
    )


def _rollout_passage(
    files: RunFiles,
    record: ContextRecord,
    fates: Mapping[int, Decision],
    learnt: Mapping[tuple[str, int], Sequence[LearntRow]],
) -> PassageEntry:
    answered = {BEFORE: record.baseline} | {
        candidate_key(edit.candidate): evaluation
        for edit in record.edits
        if (evaluation := _first_evaluation(record, "edit", edit.candidate)) is not None
    }
    edits = [
        _edit(
            record,
            edit,
            learnt.get((record.context_id, edit.candidate), ()),
            fates[edit.candidate],
            candidate,
        )
        for edit, candidate in zip(record.edits, candidates_of(record), strict=True)
    ]
    return _passage(files, record, answered, edits)


def _edit(
    record: ContextRecord,
    edit: EditRecord,
    learnt: Sequence[LearntRow],
    decision: Decision,
    candidate: Candidate,
) -> EditEntry:
    return EditEntry(
        candidate=edit.candidate,
        key=candidate_key(edit.candidate),
        text=edit_text(record.parts, edit),
        groups=part_groups(record, edit, learnt),
        examples=tuple(_shown(edit.examples)),
        examples_total=len(edit.examples),
        tokens=edit.tokens,
        truncated=edit.truncated,
        outcome=str(candidate.outcome),
        reward=candidate.reward,
        gain=candidate.gain,
        decision=decision,
    )


def _shown(examples: Sequence[ExampleRecord]) -> Iterator[ExampleRecord]:
    """Examples, in order, until they are more than anybody reads."""
    room = MAX_EXAMPLE_CHARACTERS
    for example in examples:
        room -= len(example.prompt) + len(example.completion)
        if room < 0:
            return
        yield example


def validation_details(files: RunFiles, *, limit: int) -> PassageGroup | None:
    """The first validation passages with the answers of every row, none before there are any."""
    stages = list(files.named("validate"))
    first = next((stage for stage in stages if stage.round == 0), None)
    if first is None:
        return None
    later = {
        (stage.round, record.context_id): record for stage in stages for record in stage.records
    }
    passages = []
    for record in first.records[:limit]:
        answered: dict[str, EvaluationRecord | None] = {"base": record.baseline}
        for kind in PASSAGE_KINDS:
            answered[kind] = _first_evaluation(record, kind, None)
        for stage in stages:
            if again := later.get((stage.round, record.context_id)):
                answered[f"edit-{stage.round}"] = _first_evaluation(again, "edit", None)
        for ceiling in CEILING_KINDS:
            answered[ceiling] = _first_evaluation(record, ceiling, None)
        passages.append(
            _passage(files, record, {key: value for key, value in answered.items() if value}, ())
        )
    return PassageGroup(round=0, passages=tuple(passages), passages_total=len(first.records))


def _first_evaluation(
    record: ContextRecord, kind: InnerLoopKind, candidate: int | None
) -> EvaluationRecord | None:
    """The first repeat (of the first candidate) that was asked at all."""
    return next(
        (loop.evaluation for loop in loops_of(record, kind, candidate) if loop.evaluation), None
    )


def _passage(
    files: RunFiles,
    record: ContextRecord,
    answered: Mapping[str, EvaluationRecord],
    edits: Sequence[EditEntry],
) -> PassageEntry:
    context, right = files.contexts.get(record.context_id), right_of(files.spec)
    by_query = {
        key: {answer.query_id: answer for answer in evaluation.answers}
        for key, evaluation in answered.items()
    }
    questions = tuple(
        QuestionEntry(
            question=asked.question,
            golds=asked.golds,
            answers={
                key: _answer(answers[asked.query_id], right)
                for key, answers in by_query.items()
                if asked.query_id in answers
            },
        )
        for asked in record.baseline.answers
    )
    return PassageEntry(
        context_id=record.context_id,
        title=record.title,
        text=context.text if context else "",
        baseline=record.baseline.reward,
        edits=tuple(edits),
        questions=questions,
    )


def _answer(answer: AnswerRecord, right: Metric) -> AnswerEntry:
    return AnswerEntry(
        answer=answer.answer,
        right=answer_score(answer, right),
        score=answer_score(answer, "score"),
    )
