"""The world that a run lives in, as the reconcile loop sees it.

There are two: a laptop's (`controller_svc.local`: asyncio tasks and files) and a cluster's (Jobs
and the custom resource's status). Both keep the results of shards in the artifact store, so reading
what a finished stage came to is the same in both.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from controller_svc.core import Action, Observed, RunStatus, StageStatus, StageSums, sum_shards
from seal.artifacts import ArtifactStore
from seal.records import ShardSummary
from seal.runs.shards import ShardStore

READERS = 32
"""Summaries read at once: a stage may have a thousand, each a request to the store."""


class World(Protocol):
    """What a run is observed and acted upon through."""

    async def observe(self, status: RunStatus) -> Observed:
        """What there is of the run now. What cannot be seen is left out, never called failed."""

    async def save(self, status: RunStatus) -> None:
        """Write the status down; once it returns, a restart finds it.

        Raises:
            Conflict: somebody else has written since, or a newer controller has started the
                current stage; nothing has changed.

        """

    async def act(self, action: Action) -> None:
        """Start or stop one attempt of a stage; starting one that is there changes nothing."""


async def read_sums(store: ArtifactStore, run: str, stage: StageStatus) -> StageSums | None:
    """What a stage came to; None while a shard has no summary.

    Raises:
        Internal: a summary is damaged or not the one of its place.
        Transient: the store is away.

    """
    places = asyncio.Semaphore(READERS)

    async def read(shard: int) -> ShardSummary | None:
        files = ShardStore(store, run=run, round=stage.round, stage=stage.stage, shard=shard)
        async with places:
            return await files.summary()

    summaries = await asyncio.gather(*(read(shard) for shard in range(stage.shards)))
    there = [summary for summary in summaries if summary is not None]
    if len(there) < stage.shards:
        return None
    return sum_shards(there, stage=stage.stage, round=stage.round)
