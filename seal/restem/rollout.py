"""From a rollout's records to the selection that is written down.

The bridge between what workers leave and `select`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from seal.outcomes import Outcome
from seal.records import (
    CONTROL_WITHOUT_REWARD,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    InnerLoopRecord,
    KeptEdit,
    LearntRow,
    SelectionRecord,
)
from seal.restem.racing import Runner, finalists
from seal.restem.reward import mean
from seal.restem.seeds import derive_seed
from seal.restem.select import Candidate, Kept, Selection, select
from seal.settings import RacingScore, RunSpec

_ANSWERED = (Outcome.OK, Outcome.UNGRADED)
"""Outcomes of answers that were given, and so have a log-probability: others say 0."""


def select_records(
    records: Iterable[ContextRecord],
    *,
    round: int,
    keep_per_context: int,
    too_long: Collection[tuple[str, int]] = (),
    control_seed: int | None = None,
) -> SelectionRecord:
    """Choose among all edits of a round's rollout.

    The same records in any order give the same bytes. `too_long`: (context, candidate) of edits
    that no training could take, with their prompts: they are left out and counted. With
    `control_seed` it is a control without reward (`select`).

    Raises:
        InvalidInput: as `select` does.
    """
    members = list(records)
    by_id = {record.context_id: record for record in members}
    selection = divide(
        members, keep_per_context=keep_per_context, too_long=too_long, control_seed=control_seed
    )
    kept = tuple(kept_edit(by_id[kept.candidate.context_id], kept) for kept in selection.kept)
    return SelectionRecord(
        round=round,
        label="" if control_seed is None else CONTROL_WITHOUT_REWARD,
        kept=kept,
        dropped=selection.counts,
        too_long=tuple(sorted(too_long)),
        sha256=selection_digest(kept),
    )


def control_seed_of(spec: RunSpec, round: int) -> int | None:
    """By what a round's control without reward draws; None where the reward chooses."""
    if spec.improve.selection == "reward":
        return None
    return derive_seed(spec.seed, "control", round)


def divide(
    records: Iterable[ContextRecord],
    *,
    keep_per_context: int,
    too_long: Collection[tuple[str, int]] = (),
    control_seed: int | None = None,
) -> Selection:
    """All edits of a round's rollout, kept or dropped; as `select_records`."""
    candidates = [
        replace(candidate, outcome=Outcome.TOO_LONG)
        if (candidate.context_id, candidate.candidate) in too_long
        else candidate
        for record in records
        for candidate in candidates_of(record)
    ]
    return select(candidates, keep_per_context=keep_per_context, control_seed=control_seed)


def candidates_of(record: ContextRecord) -> tuple[Candidate, ...]:
    """A context's edits with the rewards of their inner loops, repeat by repeat.

    Those that ran fewer than others were in a race; those that ran none where others did were not
    preselected, which makes no race of what the others ran.
    """
    runners = [
        runner_of(edit, record.inner_loops, baseline=record.baseline) for edit in record.edits
    ]
    in_the_end = finalists([runner for runner in runners if runner.scores] or runners)
    return tuple(
        Candidate(
            context_id=record.context_id,
            candidate=edit.candidate,
            characters=characters(edit),
            outcome=runner.outcome,
            rewards=runner.scores,
            logprob=runner.logprob,
            baseline=record.baseline.reward,
            eliminated=edit.candidate not in in_the_end,
        )
        for edit, runner in zip(record.edits, runners, strict=True)
    )


def runner_of(
    edit: EditRecord,
    inner_loops: Iterable[InnerLoopRecord],
    *,
    baseline: EvaluationRecord | None = None,
    first_rung: RacingScore = "reward",
) -> Runner:
    """An edit with the rewards of those of the inner loops that are its own.

    `baseline`: edits are compared with it and with each other, so a reward is that of the queries
    which have a grade there, and a repeat that lacks one of these has none: without the verdict
    that a judge failed to give it would be another test. `first_rung`: what a single repeat is
    scored by. The log-probability is there even where the answers could not be graded.
    """
    loops = sorted(
        (loop for loop in inner_loops if loop.kind == "edit" and loop.candidate == edit.candidate),
        key=lambda loop: loop.repeat,
    )
    by_logprob = first_rung == "logprob" and len(loops) == 1
    counted = [
        loop.evaluation if loop.outcome is Outcome.OK or by_logprob else None for loop in loops
    ]
    logprob = mean(
        answer.logprob
        for evaluation in counted
        if evaluation
        for answer in evaluation.answers
        if answer.outcome in _ANSWERED
    )
    return Runner(
        candidate=edit.candidate,
        outcome=_outcome(edit, loops),
        scores=(logprob,)
        if by_logprob
        else tuple(_reward(evaluation, baseline) if evaluation else None for evaluation in counted),
        logprob=logprob,
        characters=characters(edit),
    )


def _reward(evaluation: EvaluationRecord, baseline: EvaluationRecord | None) -> float | None:
    """Mean score over what has a grade in the baseline, if anything has; None if one lacks here."""
    scores = {answer.query_id: answer.score for answer in evaluation.answers}
    graded = [answer for answer in baseline.answers if answer.score is not None] if baseline else []
    compared = [scores.get(answer.query_id) for answer in graded]
    if not compared:
        return evaluation.reward
    return None if None in compared else mean(compared)


def characters(edit: EditRecord) -> int:
    """Length of an edit, by which the shorter of two equal ones is preferred."""
    return sum(len(part.text) for part in edit.parts)


def shared_repeats(record: ContextRecord) -> ContextRecord:
    """The record without what only the survivors of a race ran.

    A mean over candidates takes this: the survivors' first rewards were lucky and their later ones
    are not, so that means of unequal numbers of repeats would make the average candidate look worse
    than it is. Without a race nothing is left out.
    """
    runs = [
        sum(loop.kind == "edit" and loop.candidate == edit.candidate for loop in record.inner_loops)
        for edit in record.edits
    ]
    shared = min((run for run in runs if run), default=0)
    return record.model_copy(
        update={
            "inner_loops": tuple(
                loop for loop in record.inner_loops if loop.kind != "edit" or loop.repeat < shared
            )
        }
    )


def _outcome(edit: EditRecord, loops: Sequence[InnerLoopRecord]) -> Outcome:
    """Ok if any repeat is; else how the first one ended."""
    without_loops = Outcome.UNGRADED if edit.examples else Outcome.INVALID
    outcomes = [loop.outcome for loop in loops] or [without_loops]
    return Outcome.OK if Outcome.OK in outcomes else outcomes[0]


def kept_edit(record: ContextRecord, kept: Kept) -> KeptEdit:
    """A whole edit that is learnt: all its parts that parsed to something."""
    candidate = kept.candidate
    edit = next(edit for edit in record.edits if edit.candidate == candidate.candidate)
    useful = sorted({example.part for example in edit.examples})
    rows = tuple(learnt_row(record, part, edit.parts[part].text) for part in useful)
    return KeptEdit(
        context_id=candidate.context_id,
        candidate=candidate.candidate,
        rows=rows,
        reward=kept.reward,
        gain=kept.gain,
        sha256=kept_digest(candidate.context_id, rows),
    )


def learnt_row(
    record: ContextRecord, part: int, completion: str, *, credit: float | None = None
) -> LearntRow:
    """The row by which the policy learns to write a text as a part of a context's edit."""
    asked = record.parts[part]
    return LearntRow(
        part=part,
        prompt=asked.prompt + asked.start,
        messages=asked.messages,
        completion=completion,
        credit=credit,
    )


def kept_digest(context_id: str, rows: Iterable[LearntRow]) -> str:
    """`KeptEdit.sha256`: what is learnt decides, not how it was chosen."""
    return _digest([context_id, *(_row_digest(row) for row in rows)])


def selection_digest(kept: Iterable[KeptEdit], abstaining: Iterable[LearntRow] = ()) -> str:
    """`SelectionRecord.sha256`."""
    return _digest([*(edit.sha256 for edit in kept), *(_row_digest(row) for row in abstaining)])


def _row_digest(row: LearntRow) -> str:
    turns = (text for message in row.messages for text in (message.role, message.content))
    return _digest([row.prompt, *turns, row.completion])


def _digest(parts: Sequence[str]) -> str:
    """sha256 of some strings in order, lower-case hex."""
    return hashlib.sha256(
        json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()
    ).hexdigest()
