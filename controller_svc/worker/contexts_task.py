"""A shard of a rollout or a validation, from its plan to its summary."""

from __future__ import annotations

from controller_svc.worker.bench import Bench
from controller_svc.worker.shard import run_shard
from controller_svc.worker.shard_plan import ShardPlan
from controller_svc.worker.summary import (
    shard_engine_seconds,
    shard_measures,
    shard_outcomes,
    shard_scores,
    shard_tokens,
)
from seal.artifacts import ArtifactStore
from seal.records import ShardSummary
from seal.runs.cleanup import inner_adapters, measure
from seal.runs.task import ShardTask


async def run_contexts(
    task: ShardTask, store: ArtifactStore, bench: Bench, plan: ShardPlan
) -> ShardSummary:
    """The contexts of the plan, the records file, the summary's numbers; not yet committed."""
    result = await run_shard(bench, plan)
    records, records_sha256 = await bench.files.commit_records(result.records)
    return task.summary(
        seconds=bench.clock.seconds,
        result_sha256=records_sha256,
        inner_loops_run=result.inner_loops_run,
        inner_loops_resumed=result.inner_loops_resumed,
        outcomes=shard_outcomes(records),
        tokens=shard_tokens(records, result.retained),
        engine_seconds=shard_engine_seconds(records, result.retained),
        stored_bytes=await measure(
            store, records_path=bench.files.path, adapters=inner_adapters(records)
        ),
        scores=shard_scores(records, result.retained),
        measures=shard_measures(records),
    )
