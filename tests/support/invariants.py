"""I1 to I8 of the reliability promises, asked of a cluster in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from memory_api import MemoryApi
from memory_cluster import jobs_of
from pod_work import LOOPS_PER_SHARD

from controller_svc.core import Phase, RunStatus, parse_ranges, shards, stages
from controller_svc.k8s.api import JOBS, Resource
from controller_svc.k8s.objects import of_object
from seal.artifacts import ArtifactStore
from seal.records import Stage
from seal.runs.shards import ShardStore
from seal.settings import Spec
from seal.yaml_files import Tree

ORDER = [Phase.PENDING, Phase.RUNNING, Phase.COMPLETE]
READS = ("get", "list")


class WatchedApi(MemoryApi):
    """An API server that looks at every status that it is given."""

    plans: dict[str, Spec]
    """Specs by uid."""

    def __init__(self) -> None:
        super().__init__()
        self.plans = {}

    def _replaced(self, kind: Resource, namespace: str, body: Any, part: str) -> Tree:
        before = self._found(kind, namespace, body["metadata"]["name"])
        old = of_object(before.get("status") or {}) if part == "status" else None
        found = super()._replaced(kind, namespace, body, part)
        uid = before["metadata"]["uid"]
        if part == "status" and uid in self.plans:
            new = of_object(found["status"])
            assert new is not None
            check_move(self.plans[uid], old, new)
        return found


def check_move(spec: Spec, before: RunStatus | None, after: RunStatus) -> None:
    """I4: everything only moves forward, and what has ended stays as it is."""
    if before is None:
        return
    if before.phase.terminal:
        assert after == before, "a terminal status has changed"
    if after.phase in ORDER:
        assert ORDER.index(after.phase) >= ORDER.index(before.phase)
    plan = stages(spec)
    if before.stage is not None and after.stage is not None:
        assert plan.index((after.round, after.stage)) >= plan.index((before.round, before.stage))
    assert after.policies[: len(before.policies)] == before.policies
    old, new = before.current, after.current
    if old and new and (old.round, old.stage) == (new.round, new.stage):
        assert new.attempt >= old.attempt
        assert parse_ranges(new.completed) >= parse_ranges(old.completed)


def check_jobs(api: MemoryApi, *, rivals: bool = False) -> None:
    """I3: one live Job per attempt of a stage, none without an owner; alone, one per stage.

    `rivals`: an older leader may have sent its last request.
    """
    live: Counter[tuple[str, str, str]] = Counter()
    uids = {found["metadata"]["uid"] for found in api.objects.values()}
    for key, job in api.objects.items():
        if key[0] != JOBS:
            continue
        (owner,) = job["metadata"]["ownerReferences"]
        going = job["metadata"].get("deletionTimestamp")
        assert owner["uid"] in uids or going, f"{key[2]} belongs to nobody"
        if not (job.get("status") or {}).get("conditions"):
            labels = job["metadata"]["labels"]
            live[owner["uid"], labels["seal.dev/round"], labels["seal.dev/stage"]] += 1
    assert rivals or not live or max(live.values()) == 1, live


async def check_counted(store: ArtifactStore, spec: Spec, status: RunStatus) -> None:
    """I2 and I12: each shard of a run that is complete counts once, and the counters say so."""
    plan = stages(spec)
    assert status.counters.stages_succeeded == len(plan)
    assert status.counters.shards_succeeded == sum(shards(spec, stage) for _, stage in plan)
    for round, stage in plan:
        for shard in range(shards(spec, stage)):
            files = ShardStore(store, run=status.run, round=round, stage=stage, shard=shard)
            assert await files.summary() is not None, (round, stage, shard)
    for entry in status.rounds:
        measured = [s for r, s in plan if r == entry.round and s in (Stage.ROLLOUT, Stage.VALIDATE)]
        loops = sum(LOOPS_PER_SHARD * shards(spec, stage) for stage in measured)
        assert entry.inner_loops_run + entry.inner_loops_resumed == loops


def check_nothing_left(api: MemoryApi, uid: str) -> None:
    """I7: of what has ended no Job is at work."""
    for job in jobs_of(api, uid):
        assert (job.get("status") or {}).get("conditions"), job["metadata"]["name"]


def result(status: RunStatus) -> object:
    """I9: what must not depend on faults: all but clocks, names and attempts."""
    rounds = [
        (r.round, r.kept, r.selection_sha256, r.rollout, r.validation, r.outcomes, r.tokens)
        for r in status.rounds
    ]
    told = status.adaptation
    adapted = told and (told.counts, told.edits, told.scores, told.result)
    return status.phase, status.policies, rounds, adapted


def writes(requests: list[str]) -> list[str]:
    """Those that change something; a lease is renewed for ever."""
    return [one for one in requests if not one.startswith(READS) and not one.endswith("leases")]
