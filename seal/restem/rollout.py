"""From a rollout's records to the selection that is written down: the bridge between what workers leave and `select`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from seal.outcomes import Outcome
from seal.records import ContextRecord, EditRecord, InnerLoopRecord, KeptEdit, SelectionRecord
from seal.restem.reward import mean
from seal.restem.select import Candidate, Kept, select


def select_records(records: Iterable[ContextRecord], *, round: int, keep_per_context: int) -> SelectionRecord:
    """Choose among all edits of a round's rollout. The same records in any order give the same bytes.

    Raises:
        InvalidInput: as `select` does.
    """
    candidates = [candidate for record in records for candidate in candidates_of(record)]
    selection = select(candidates, keep_per_context=keep_per_context)
    kept = tuple(_kept_edit(kept) for kept in selection.kept)
    return SelectionRecord(round=round, kept=kept, dropped=selection.counts, sha256=_digest([edit.sha256 for edit in kept]))


def candidates_of(record: ContextRecord) -> tuple[Candidate, ...]:
    """A context's edits with the rewards of their inner loops, repeat by repeat."""
    return tuple(_candidate(record, edit) for edit in record.edits)


def _candidate(record: ContextRecord, edit: EditRecord) -> Candidate:
    loops = sorted(
        (loop for loop in record.inner_loops if loop.kind == "edit" and loop.candidate == edit.candidate), key=lambda loop: loop.repeat
    )
    evaluations = [loop.evaluation if loop.outcome is Outcome.OK else None for loop in loops]
    answers = [answer for evaluation in evaluations if evaluation for answer in evaluation.answers]
    return Candidate(
        context_id=record.context_id,
        candidate=edit.candidate,
        prompt=record.prompt,
        text=edit.text,
        outcome=_outcome(edit, loops),
        rewards=tuple(evaluation.reward if evaluation else None for evaluation in evaluations),
        logprob=mean(answer.logprob for answer in answers),
        baseline=record.baseline.reward,
    )


def _outcome(edit: EditRecord, loops: Sequence[InnerLoopRecord]) -> Outcome:
    """Ok if any repeat is; else how the first one ended."""
    if not edit.examples:
        return Outcome.INVALID
    outcomes = [loop.outcome for loop in loops] or [Outcome.UNGRADED]
    return Outcome.OK if Outcome.OK in outcomes else outcomes[0]


def _kept_edit(kept: Kept) -> KeptEdit:
    candidate = kept.candidate
    return KeptEdit(
        context_id=candidate.context_id,
        candidate=candidate.candidate,
        prompt=candidate.prompt,
        text=candidate.text,
        reward=kept.reward,
        gain=kept.gain,
        sha256=_digest([candidate.context_id, candidate.prompt, candidate.text]),
    )


def _digest(parts: Sequence[str]) -> str:
    """sha256 of some strings in order, lower-case hex."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()
