"""What a pod's worker does in tests: as little as leaves the same marks, or the whole of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from direct_clients import Bureau, DirectClients
from resume_harness import Effects
from synthetic_adaptation import synthetic_result

from controller_svc.worker.task import run_task
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.records import AdaptationCounts, AdapterReference, ScoreSum, ShardSummary, Stage
from seal.runs.manifest import read_spec
from seal.runs.shards import ShardStore, finish_shard
from seal.runs.task import ShardTask

LOOPS_PER_SHARD = 2


def digest(*parts: object) -> str:
    """Of what decides a result: never of who came to it, or when."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass
class SyntheticWork:
    """A summary by hash, committed as a worker commits its own.

    Each policy follows from the one before it, so that a wrong reference anywhere changes the last.
    """

    fail: Callable[[ShardTask], SealError | None] = lambda task: None
    done: Counter[tuple[str, int, Stage, int]] = field(default_factory=Counter)
    """How often each shard was worked on."""

    async def __call__(self, task: ShardTask, store: ArtifactStore) -> ShardSummary:
        await read_spec(store, task.run)  # without its manifest a worker ends at once
        if (error := self.fail(task)) is not None:
            raise error

        async def work(files: ShardStore) -> ShardSummary:
            self.done[task.run, task.round, task.stage, task.shard] += 1
            return synthetic_summary(task)

        return await finish_shard(task, store, work)


def synthetic_summary(task: ShardTask) -> ShardSummary:
    """What a shard comes to, whichever attempt of it."""
    result = digest(task.stage, task.round, task.shard, task.policy)
    loops = LOOPS_PER_SHARD if task.stage in (Stage.ROLLOUT, Stage.VALIDATE) else 0
    trained = task.stage is Stage.IMPROVE
    return task.summary(
        seconds=1.0,
        result_sha256=result,
        inner_loops_run=loops,
        outcomes={"ok": loops} if loops else {},
        tokens={"train": loops},
        scores={"edit": ScoreSum(n=loops, total=int(result[:4], 16) / 2**16)} if loops else {},
        policy=AdapterReference(path=f"adapters/{result}", sha256=result) if trained else None,
        kept=1 if trained else 0,
        counts=AdaptationCounts(documents=1, held_out_questions=task.shard + 1),
        result=synthetic_result() if task.stage is Stage.ADAPT else None,
    )


@dataclass
class RealWork:
    """A worker's whole work, on services that answer by hash."""

    bureau: Bureau

    async def __call__(self, task: ShardTask, store: ArtifactStore) -> ShardSummary:
        spec = await read_spec(store, task.run)
        clients = DirectClients(self.bureau, Effects())
        return await run_task(task, spec=spec, store=store, clients=clients)  # type: ignore[arg-type]
