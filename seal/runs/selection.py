"""What a round keeps of its rollout, as far as a trainer takes it.

Read from the shards' records, and a pure function of them and of the lengths that the trainer
counts: whoever asks again gets the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.errors import Internal
from seal.records import ContextRecord, SelectionRecord, Stage
from seal.restem.part_selection import Place, places_of, select_parts
from seal.restem.parts import credits_of
from seal.restem.rollout import control_seed_of, select_records
from seal.runs.prompts import with_learnt_prompts
from seal.runs.rows import RowCounter, fitting_rows
from seal.runs.shards import ShardStore
from seal.runs.store import in_thread
from seal.settings import LearningSpec, RunSpec


async def choose_edits(
    run: str,
    round: int,
    spec: RunSpec,
    store: ArtifactStore,
    *,
    max_row_tokens: int,
    trainer: RowCounter,
) -> SelectionRecord:
    """What a round keeps; not yet committed.

    Raises:
        Internal: the rollout's records are not those of its summaries.

    """
    records = await rollout_records(store, run, spec, round)
    records = await with_learnt_prompts(records, spec=spec, store=store, run=run)
    return await _select_fitting(
        await in_thread(_selector, records, round=round, spec=spec),
        max_row_tokens=max_row_tokens,
        trainer=trainer,
    )


async def rollout_records(
    store: ArtifactStore, run: str, spec: LearningSpec, round: int
) -> tuple[ContextRecord, ...]:
    """All context records of a round's rollout, ordered by context.

    So the number of shards does not show.
    """
    shards = [
        ShardStore(store, run=run, round=round, stage=Stage.ROLLOUT, shard=shard)
        for shard in range(spec.shards)
    ]
    parts = await asyncio.gather(*(_checked_records(shard) for shard in shards))
    return tuple(
        sorted((record for part in parts for record in part), key=lambda record: record.context_id)
    )


async def _checked_records(shard: ShardStore) -> tuple[ContextRecord, ...]:
    summary = await shard.summary()
    if summary is None:
        raise Internal(
            f"{shard.path} has no summary though its stage is over",
            remedy="delete the round's stages and resume",
        )
    records, sha256 = await shard.read_records()
    if sha256 != summary.result_sha256:
        raise Internal(
            f"{shard.path}/records.jsonl is not the file of its summary",
            remedy=f"delete {shard.path} and resume",
        )
    return records


_Choose = Callable[[Collection[Place]], SelectionRecord]
"""What a round keeps, leaving out what has a row at one of some places."""


def _selector(records: Sequence[ContextRecord], *, round: int, spec: RunSpec) -> _Choose:
    """The rule by which a round keeps edits or parts; with credit to parts it takes a while."""
    if spec.improve.credit == "part":
        credits = credits_of(records, get_domain(spec.domain))
        return lambda too_long: select_parts(
            records, round=round, spec=spec, credits=credits, too_long=too_long
        )
    return lambda too_long: select_records(
        records,
        round=round,
        keep_per_context=spec.improve.keep_per_context,
        too_long={(context_id, candidate) for context_id, candidate, _ in too_long},
        control_seed=control_seed_of(spec, round),
    )


async def _select_fitting(
    choose: _Choose, *, max_row_tokens: int, trainer: RowCounter
) -> SelectionRecord:
    """What a round keeps of edits, or of parts, that can be learnt.

    One of which a row is too long for the trainer leaves its place to the next best of its context,
    and is counted as `too_long`.
    """
    too_long: set[Place] = set()
    while True:
        selection = choose(too_long)
        places = places_of(selection)
        fits = await fitting_rows(selection.rows, max_row_tokens, trainer)
        found = {place for place, fit in zip(places, fits, strict=True) if not fit}
        if not found:
            return selection
        too_long |= found
