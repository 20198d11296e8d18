"""Which parts of a round's edits the policy learns: those with credit, or as many by chance.

`improve.selection: random` is the control without reward: of each context as many parts as credit
would have kept, drawn from all that could have had credit (whole, parsed to an example, trained on
in an inner loop with a score). They went through the same filters and were chosen by nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seal.domains.base import ABSTAIN
from seal.records import (
    CONTROL_WITHOUT_REWARD,
    AbstainingRow,
    ContextRecord,
    KeptEdit,
    SelectionRecord,
)
from seal.restem.parts import PartText
from seal.restem.rollout import candidates_of, kept_digest, learnt_row, selection_digest
from seal.restem.seeds import derive_seed
from seal.restem.select import DropReason, PartDropReason, unscored_reason
from seal.settings import ImproveSettings, RunSpec

Place = tuple[str, int, int]
"""(context, candidate, part): where a text stands."""

ABSTAINING = -1
"""In the place of a candidate in the `Place` of an abstaining row."""


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The texts of one context, divided before any is chosen."""

    record: ContextRecord
    scores: Mapping[int, tuple[float, float]]
    """Reward and gain of the candidates that have them."""
    credited: tuple[PartText, ...]
    """All that were parsed to an example."""
    homes: Mapping[PartText, int]
    """Those that can be kept, the best first, each with the candidate that it is kept with."""
    unfit: Mapping[tuple[int, int], PartDropReason]
    """Texts that cannot, by candidate and part."""


def select_parts(
    records: Iterable[ContextRecord],
    *,
    round: int,
    spec: RunSpec,
    credits: Mapping[str, tuple[PartText, ...]],
    too_long: Collection[Place] = (),
) -> SelectionRecord:
    """Choose among the parts of all edits of a round's rollout.

    The same records in any order give the same bytes. `credits` are those of the records
    (`credits_of`), `too_long` places of texts that no training could take, with their prompts.
    """
    settings, seed = spec.improve, spec.seed
    kept: list[KeptEdit] = []
    silent: list[AbstainingRow] = []
    dropped: Counter[str] = Counter()
    dropped_parts: Counter[str] = Counter()
    for record in sorted(records, key=lambda record: record.context_id):
        pool = _pool(record, credits[record.context_id], too_long)
        chosen = _choose(pool, settings, derive_seed(seed, "control", round, record.context_id))
        edits = _kept_edits(pool, chosen)
        kept += edits
        dropped.update(
            str(reason)
            for reason in dropped_candidates(record, {edit.candidate for edit in edits}).values()
        )
        dropped_parts.update(str(reason) for reason in _dropped_parts(pool, chosen, settings))
        if settings.abstain_share:
            silent += _silent_rows(pool, spec, too_long)
    abstaining = _abstaining(
        silent,
        int(settings.abstain_share * sum(len(edit.rows) for edit in kept)),
        lambda row: derive_seed(seed, "abstain", round, row.context_id, row.part),
    )
    return SelectionRecord(
        round=round,
        label=CONTROL_WITHOUT_REWARD if settings.selection == "random" else "",
        kept=tuple(kept),
        abstaining=abstaining,
        dropped=dict(sorted(dropped.items())),
        dropped_parts=dict(sorted(dropped_parts.items())),
        sha256=selection_digest(kept, abstaining),
    )


def places_of(selection: SelectionRecord) -> list[Place]:
    """Where each of a selection's rows stands, in the order of `SelectionRecord.rows`."""
    kept = [
        (edit.context_id, edit.candidate, row.part) for edit in selection.kept for row in edit.rows
    ]
    return kept + [(row.context_id, ABSTAINING, row.part) for row in selection.abstaining]


def dropped_candidates(record: ContextRecord, kept: Collection[int]) -> dict[int, DropReason]:
    """Why nothing is kept of a candidate, by index; without those of which something is kept."""
    return {
        candidate.candidate: unscored_reason(candidate)
        if candidate.gain is None
        else DropReason.NO_CREDIT
        for candidate in candidates_of(record)
        if candidate.candidate not in kept
    }


def _pool(
    record: ContextRecord, credited: tuple[PartText, ...], too_long: Collection[Place]
) -> _Pool:
    scores = {
        one.candidate: (one.reward, one.gain)
        for one in candidates_of(record)
        if one.reward is not None and one.gain is not None
    }
    of_text = {(text.part, text.text): text for text in credited}
    homes: dict[PartText, int] = {}
    unfit: dict[tuple[int, int], PartDropReason] = {}
    for edit in sorted(record.edits, key=lambda edit: edit.candidate):
        for part, written in enumerate(edit.parts):
            text = of_text.get((part, written.text))
            if text is None or edit.candidate not in text.candidates:
                reason = PartDropReason.FILTERED
            elif written.truncated:
                reason = PartDropReason.TRUNCATED
            elif edit.candidate not in scores:
                reason = PartDropReason.UNTRIED
            elif any((record.context_id, one, part) in too_long for one in text.candidates):
                reason = PartDropReason.TOO_LONG
            elif text in homes:
                reason = PartDropReason.REPEATED
            else:
                homes[text] = edit.candidate
                continue
            unfit[edit.candidate, part] = reason
    best_first = dict(sorted(homes.items(), key=lambda item: _rank(*item)))
    return _Pool(record=record, scores=scores, credited=credited, homes=best_first, unfit=unfit)


def _rank(text: PartText, candidate: int) -> tuple[float, float, int, int]:
    """Sorts the best first."""
    return (
        math.inf if text.credit is None else -text.credit,
        math.inf if text.logprob is None else -text.logprob,
        candidate,
        text.part,
    )


def _choose(pool: _Pool, settings: ImproveSettings, seed: int) -> list[PartText]:
    """The parts of a context that are learnt."""
    credited = [
        text for text in pool.homes if text.credit is not None and text.credit > settings.min_credit
    ][: settings.max_parts_per_context or None]
    if settings.selection == "reward":
        return credited
    drawn = sorted(pool.homes, key=lambda text: derive_seed(seed, text.part, text.text))
    return drawn[: len(credited)]


def _kept_edits(pool: _Pool, chosen: Sequence[PartText]) -> list[KeptEdit]:
    """The chosen parts, by the candidates that they are kept with."""
    by_candidate: dict[int, list[PartText]] = {}
    for text in sorted(chosen, key=lambda text: (pool.homes[text], text.part)):
        by_candidate.setdefault(pool.homes[text], []).append(text)
    context_id = pool.record.context_id
    edits = []
    for index, texts in by_candidate.items():
        reward, gain = pool.scores[index]
        rows = tuple(
            learnt_row(pool.record, text.part, text.text, credit=text.credit) for text in texts
        )
        edits.append(
            KeptEdit(
                context_id=context_id,
                candidate=index,
                rows=rows,
                reward=reward,
                gain=gain,
                sha256=kept_digest(context_id, rows),
            )
        )
    return edits


def _dropped_parts(
    pool: _Pool, chosen: Collection[PartText], settings: ImproveSettings
) -> Iterator[PartDropReason]:
    """Why each text that is not kept is not."""
    yield from pool.unfit.values()
    for text in pool.homes:
        if text in chosen:
            continue
        if settings.selection == "random" or (text.credit or 0.0) > settings.min_credit:
            yield PartDropReason.NOT_CHOSEN
        elif _harms(text, settings):
            yield PartDropReason.NEGATIVE
        else:
            yield PartDropReason.NO_CREDIT


def _harms(text: PartText, settings: ImproveSettings) -> bool:
    return text.credit is not None and text.credit < -settings.min_credit


def _silent_rows(
    pool: _Pool, spec: RunSpec, too_long: Collection[Place]
) -> Iterator[AbstainingRow]:
    """A row for each part prompt to which no candidate wrote anything of use.

    All its texts were filtered or, where the reward chooses, do harm. Of an edit with as many
    examples as one may have nothing is known of the rest: it may have been left out for want of
    room.
    """
    record, settings = pool.record, spec.improve
    useful = {
        text.part
        for text in pool.credited
        if settings.selection == "random" or not _harms(text, settings)
    }
    full = [
        {example.part for example in edit.examples}
        for edit in record.edits
        if len(edit.examples) >= spec.inner.examples.max_examples
    ]
    written = {part for edit in record.edits for part in range(len(edit.parts))}
    for part in sorted(written - useful):
        if any(part not in parts for parts in full):
            continue
        if (record.context_id, ABSTAINING, part) not in too_long:
            row = learnt_row(record, part, ABSTAIN)
            yield AbstainingRow(context_id=record.context_id, **row.model_dump())


def _abstaining(
    rows: Iterable[AbstainingRow], count: int, seed_of: Callable[[AbstainingRow], int]
) -> tuple[AbstainingRow, ...]:
    """So many of the rows by chance, by context and part."""
    drawn = sorted(rows, key=seed_of)[:count]
    return tuple(sorted(drawn, key=lambda row: (row.context_id, row.part)))
