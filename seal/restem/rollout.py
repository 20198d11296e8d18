"""From a rollout's records to the selection that is written down.

The bridge between what workers leave and `select`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from seal.outcomes import Outcome
from seal.records import ContextRecord, EditRecord, InnerLoopRecord, KeptEdit, SelectionRecord
from seal.restem.racing import Runner, finalists
from seal.restem.reward import mean
from seal.restem.select import Candidate, Kept, select
from seal.settings import RacingScore


def select_records(
    records: Iterable[ContextRecord],
    *,
    round: int,
    keep_per_context: int,
    too_long: Collection[tuple[str, int]] = (),
) -> SelectionRecord:
    """Choose among all edits of a round's rollout.

    The same records in any order give the same bytes. `too_long`: (context, candidate) of edits
    that no training could take, with their prompts: they are left out and counted.

    Raises:
        InvalidInput: as `select` does.
    """
    candidates = [
        replace(candidate, outcome=Outcome.TOO_LONG)
        if (candidate.context_id, candidate.candidate) in too_long
        else candidate
        for record in records
        for candidate in candidates_of(record)
    ]
    selection = select(candidates, keep_per_context=keep_per_context)
    kept = tuple(_kept_edit(kept) for kept in selection.kept)
    return SelectionRecord(
        round=round,
        kept=kept,
        dropped=selection.counts,
        sha256=_digest([edit.sha256 for edit in kept]),
    )


def candidates_of(record: ContextRecord) -> tuple[Candidate, ...]:
    """A context's edits with the rewards of their inner loops, repeat by repeat.

    Those that ran fewer than others were in a race.
    """
    runners = [runner_of(edit, record.inner_loops) for edit in record.edits]
    in_the_end = finalists(runners)
    return tuple(
        Candidate(
            context_id=record.context_id,
            candidate=edit.candidate,
            prompt=record.prompt,
            text=edit.text,
            outcome=runner.outcome,
            rewards=runner.scores,
            logprob=runner.logprob,
            baseline=record.baseline.reward,
            eliminated=edit.candidate not in in_the_end,
            messages=record.messages,
        )
        for edit, runner in zip(record.edits, runners, strict=True)
    )


def runner_of(
    edit: EditRecord, inner_loops: Iterable[InnerLoopRecord], *, first_rung: RacingScore = "reward"
) -> Runner:
    """An edit with the rewards of those of the inner loops that are its own.

    `first_rung`: what a single repeat is scored by. The log-probability is there even where the
    answers could not be graded.
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
        answer.logprob for evaluation in counted if evaluation for answer in evaluation.answers
    )
    return Runner(
        candidate=edit.candidate,
        outcome=_outcome(edit, loops),
        scores=(logprob,)
        if by_logprob
        else tuple(evaluation.reward if evaluation else None for evaluation in counted),
        logprob=logprob,
        characters=len(edit.text),
    )


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
    shared = min(runs, default=0)
    return record.model_copy(
        update={
            "inner_loops": tuple(
                loop for loop in record.inner_loops if loop.kind != "edit" or loop.repeat < shared
            )
        }
    )


def _outcome(edit: EditRecord, loops: Sequence[InnerLoopRecord]) -> Outcome:
    """Ok if any repeat is; else how the first one ended."""
    if not edit.examples:
        return loops[0].outcome if loops else Outcome.INVALID
    outcomes = [loop.outcome for loop in loops] or [Outcome.UNGRADED]
    return Outcome.OK if Outcome.OK in outcomes else outcomes[0]


def _kept_edit(kept: Kept) -> KeptEdit:
    candidate = kept.candidate
    turns = [text for message in candidate.messages for text in (message.role, message.content)]
    return KeptEdit(
        context_id=candidate.context_id,
        candidate=candidate.candidate,
        prompt=candidate.prompt,
        text=candidate.text,
        reward=kept.reward,
        gain=kept.gain,
        messages=candidate.messages,
        sha256=_digest([candidate.context_id, candidate.prompt, *turns, candidate.text]),
    )


def _digest(parts: Sequence[str]) -> str:
    """sha256 of some strings in order, lower-case hex."""
    return hashlib.sha256(
        json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()
    ).hexdigest()
