"""How far a run is moves while a stage works, never goes back, and costs few writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_objects import full_status
from controller_office import Office, small_adaptation, small_run
from eventually import until

from controller_svc.core import Phase, StageStatus, parse_ranges
from controller_svc.k8s.api import JOBS, RUNS
from controller_svc.k8s.objects import ObjectProgress
from controller_svc.k8s.progress import MAX_READ, StageProgress, progress_of, stage_share
from controller_svc.k8s.shown import LEAST_SECONDS
from seal.artifacts import ArtifactStore
from seal.records import Stage
from seal.runs.shares import ShardShare, ShareTeller, read_shares, share_path
from seal.runs.task import ShardTask
from seal.settings import RunSpec

STATUS_WRITE = f"replace_status {RUNS.plural}"
BEGAN = "2026-01-01T00:00:00Z"


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "store")


async def in_validation(office: Office, shards: int, **spec: object) -> Any:
    """(key, its Job) of a run whose validation is at work, with pods that do not end."""
    key = office.submit(small_run(shards=shards, **spec))
    for _ in range(2):
        await office.look(key)
        await office.cluster.step()
    await office.look(key)
    name = office.status(key).current.name  # type: ignore[union-attr]
    return key, name


def at_work(office: Office, name: str, *, done: str, active: int) -> None:
    office.api.change(
        JOBS, name,
        status={
            "active": active, "ready": active, "completedIndexes": done, "startTime": BEGAN,
        },
    )  # fmt: skip


async def test_progress_and_eta_move_at_least_every_thirty_seconds_of_a_stage(
    office: Office,
) -> None:
    key, name = await in_validation(office, shards=10)
    seen = []
    for minute in range(1, 9):
        at_work(office, name, done=f"0-{minute - 1}" if minute > 1 else "0", active=2)
        last = office.cluster.now
        while office.cluster.now < last + 60:
            again = await office.look(key)
            assert again is not None and again <= 25
            office.cluster.now += again
            progress = office.shown(key).progress
            assert progress.last_update_time is not None
            assert office.cluster.now - progress.last_update_time.timestamp() <= 30 + again
            seen.append((progress.percent, progress.eta_seconds))
    percents = [percent for percent, _ in seen]
    assert percents == sorted(percents) and percents[0] < percents[-1]
    assert all(eta is not None for _, eta in seen[2:])


async def test_shards_that_end_one_by_one_cost_less_than_a_write_in_ten_seconds(
    office: Office,
) -> None:
    key, name = await in_validation(office, shards=400)
    office.cluster.now += 60
    await office.look(key)
    before, began = office.api.requests.count(STATUS_WRITE), office.cluster.now
    for done in range(1, 399):
        at_work(office, name, done=f"0-{done}", active=1)
        await office.look(key)
        office.cluster.now += 0.5
    writes = office.api.requests.count(STATUS_WRITE) - before
    assert 5 <= writes <= (office.cluster.now - began) / LEAST_SECONDS + 1
    shown = office.shown(key).current
    assert shown is not None and len(parse_ranges(shown.completed)) >= 360


async def test_a_clock_that_is_set_back_stops_no_progress(office: Office) -> None:
    """So it looks to a controller that leads after another one whose clock was ahead."""
    key, name = await in_validation(office, shards=10)
    for hours, done in ((1, "0"), (-1, "0-8")):
        office.cluster.now += hours * 3600
        at_work(office, name, done=done, active=1)
        await office.look(key)
        shown = office.shown(key).current
        assert shown is not None and shown.completed == done


async def test_what_is_decided_is_written_at_once(office: Office) -> None:
    key, name = await in_validation(office, shards=2)
    at_work(office, name, done="0", active=1)
    await office.look(key)
    await office.cluster.step(0.1)
    await office.look(key)
    assert office.shown(key).stage is Stage.ROLLOUT


async def test_a_shard_at_work_tells_how_far_it_is_and_cleans_up(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    task = ShardTask(
        run="demo-1", stage=Stage.ROLLOUT, round=1, shard=3, shards=4, attempt=1,
        epoch=1, policy=None,
    )  # fmt: skip
    teller, path = ShareTeller(store, task), share_path("demo-1", 1, Stage.ROLLOUT, 3)
    async with teller.telling(interval_seconds=0.01):
        for told, kept in ((0.25, 0.25), (1.5, 1.0)):
            teller.tell(told)
            await until(lambda kept=kept: ShardShare(share=kept) in read_shares(store, [path]))
    assert not store.exists(path)


async def test_the_first_shards_at_work_stand_for_the_others_and_damage_is_left_out(
    tmp_path: Path,
) -> None:
    store = ArtifactStore(str(tmp_path))
    current = StageStatus(name="s", stage=Stage.ROLLOUT, round=1, shards=40, completed="0-9")

    async def share(active: int) -> float:
        return await stage_share(store, "demo", current, active)

    assert await share(20) == 10 / 40
    for shard in range(10, 10 + MAX_READ):
        path = share_path("demo", 1, Stage.ROLLOUT, shard)
        store.write_json(path, ShardShare(share=0.5))
    assert await share(20) == (10 + 20 * 0.5) / 40
    store.write_bytes(share_path("demo", 1, Stage.ROLLOUT, 10), b"{")
    assert await share(20) == pytest.approx((10 + 20 * 0.5 * (MAX_READ - 1) / MAX_READ) / 40)
    assert await share(0) == 10 / 40


def test_the_time_left_is_that_of_the_stage_and_of_those_that_follow() -> None:
    spec = RunSpec(rounds=2, shards=32)
    status = full_status(2)
    before = ObjectProgress()

    def left(share: float, seconds: float, places: int = 32) -> int | None:
        stage = StageProgress(share=share, seconds=seconds)
        shown = progress_of(spec, status, stage, before=before, places=places, now_seconds=0.0)
        return shown.eta_seconds

    improve_and_validate = round(2 * 12345.678901234)
    assert left(0.5, 100.0) == 100 + improve_and_validate
    assert left(0.0, 0.0) == round(3 * 12345.678901234), "as long as it took in the round before"
    in_turns = round((3 + 1 + 3) * 12345.678901234)
    assert left(0.0, 0.0, places=15) == in_turns, "the M-step is one shard, the others 32"
    ended = status.model_copy(update={"phase": Phase.COMPLETE, "current": None})
    shown = progress_of(spec, ended, StageProgress(), before=before, places=1, now_seconds=0.0)
    assert (shown.percent, shown.eta_seconds) == (100, None)


def test_progress_never_goes_back() -> None:
    spec, status = RunSpec(rounds=2, shards=10_000), full_status(1)
    shown = progress_of(
        spec, status, StageProgress(), before=ObjectProgress(percent=90), places=1, now_seconds=0.0
    )
    assert shown.percent == 90


async def test_an_adaptation_shows_its_share_stage_by_stage(office: Office) -> None:
    key = office.submit(small_adaptation())
    seen = []
    for _ in range(20):
        await office.look(key)
        seen.append(office.shown(key).progress.percent)
        if office.status(key).phase.terminal:
            break
        await office.cluster.step()
    assert seen == sorted(seen) and len(set(seen)) >= 4 and seen[-1] == 100
