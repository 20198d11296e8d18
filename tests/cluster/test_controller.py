"""One look after another brings an object to its end, whatever its owner changes meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from controller_office import Office, small_adaptation, small_run

from controller_svc.core import Phase
from controller_svc.k8s.api import EVENTS, JOBS, RUNS, StatusRefused
from controller_svc.k8s.controller import STOPPING_LOOK_SECONDS, UNSWEPT_LOOK_SECONDS, Key
from controller_svc.k8s.source import Seen
from controller_svc.k8s.turn import key_of
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, InvalidInput, NotFound, Transient
from seal.runs.cancelled import is_cancelled
from seal.runs.epochs import check_epochs
from seal.runs.shards import ShardStore


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "store")


async def test_a_run_and_an_adaptation_come_to_their_ends_and_say_so(office: Office) -> None:
    run, adapts = office.submit(small_run()), office.submit(small_adaptation())
    await office.to_the_end(run, adapts)
    assert office.said(run, "Complete")[:2] == ("True", "AllRoundsDone")
    assert office.said(adapts, "Complete")[0] == "True"
    shown = office.shown(run)
    assert (shown.progress.percent, shown.progress.eta_seconds) == (100, None)
    assert shown.columns.round == "1/1" and 0 < float(shown.columns.reward) < 1
    assert office.shown(adapts).columns.gain.startswith(("+", "-"))
    assert await office.look(run) is None and await office.look(adapts) is None


async def test_a_look_too_many_changes_nothing(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)
    writes = office.writes()
    await office.look(key)
    assert office.writes() == writes
    await office.to_the_end(key)
    await office.look(key)
    writes = office.writes()
    office.restart()
    await office.look(key)
    changed = [one for one in office.writes()[len(writes) :] if one != "create events"]
    assert changed == []


async def test_a_stage_starts_with_two_requests_and_few_turns_of_a_thread(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, loop = 0, asyncio.get_running_loop()
    in_executor = loop.run_in_executor

    def counted(*args: Any) -> Any:
        nonlocal turns
        turns += 1
        return in_executor(*args)

    key = office.submit(small_run(shards=1))
    costs = []
    for _ in range(3):
        asked, turns = len(office.writes()), 0
        with monkeypatch.context() as patched:
            patched.setattr(loop, "run_in_executor", counted)
            await office.look(key)
        costs.append((office.writes()[asked:], turns))
        await office.cluster.step()
    writes = ["replace_status restemruns", "create jobs", "create events"]
    # The first pins the run, the others read what the stage before came to; all check and claim
    assert costs == [(writes, 3)] * 3
    assert "get jobs" not in office.api.requests, "what no status has named is not there"


async def test_a_run_costs_two_requests_a_stage_and_one_at_its_end_beside_its_events(
    office: Office,
) -> None:
    key = office.submit(small_run(rounds=2))
    await office.to_the_end(key)
    stages = 2 + 2 * 3
    assert Counter(office.writes()) == {
        "create jobs": stages,
        "replace_status restemruns": stages + 1,
        "create events": stages + 1,
    }


async def test_of_a_run_that_outpaces_its_events_one_tells_all(office: Office) -> None:
    key = office.submit(small_run())
    while not office.status(key).phase.terminal:
        await office.controller.reconcile(key)
        await office.cluster.step()
    await office.events.flush()
    (event,) = (found for at, found in office.api.objects.items() if at[0] == EVENTS)
    assert event["reason"] == "AllRoundsDone"
    assert event["message"] == (
        "round 0 of 1: prepare; then round 0 of 1: validate; then round 1 of 1: rollout; "
        "then round 1 of 1: improve; then round 1 of 1: validate; then 1 round done"
    )


async def test_an_adaptation_counts_from_when_the_server_took_it(office: Office) -> None:
    key = office.submit(small_adaptation())
    office.body(key)["metadata"]["creationTimestamp"] = "2026-01-01T00:00:07Z"
    office.cluster.now += 100
    await office.look(key)
    adaptation = office.status(key).adaptation
    assert adaptation is not None and adaptation.accepted_seconds == 1_767_225_607.0


@pytest.mark.parametrize("make", [small_run, small_adaptation])
async def test_a_spec_that_is_none_fails_with_its_field_and_the_others_go_on(
    office: Office, make
) -> None:
    poison, good = office.submit(make("poison", shards=0)), office.submit(make("good"))
    await office.to_the_end(good)
    assert await office.look(poison) is None
    shown = office.shown(poison)
    status, reason, message = office.said(poison, "Failed")
    assert (shown.phase, status, reason) == (Phase.FAILED, "True", "InvalidInput")
    assert "spec.shards" in message and office.told(poison) == [("Warning", "InvalidInput")]
    writes = office.writes()
    office.restart()
    await office.look(poison)
    assert office.writes() == writes, "it has failed for good"


async def test_of_a_spec_that_a_newer_version_does_not_know_no_job_stays_at_work(
    office: Office,
) -> None:
    key = office.submit(small_run())
    await office.look(key)
    office.change(key, data={"unheardOf": 1})
    await office.look(key)
    assert office.said(key, "Failed")[:2] == ("True", "InvalidInput")
    assert office.said(key, "Progressing")[:2] == ("False", "RunFailed")
    await office.cluster.step()
    await office.look(key)
    assert not office.api.jobs()


async def test_a_store_that_denies_the_controller_a_summary_fails_no_run(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = office.submit(small_run())
    await office.look(key)
    await office.cluster.step()

    async def deny(*_: object) -> None:
        raise InvalidInput("s3://bucket: access was denied (AccessDenied)")

    with monkeypatch.context() as patched:
        patched.setattr(ShardStore, "summary", deny)
        with pytest.raises(InvalidInput):
            await office.look(key)
    assert office.shown(key).phase is Phase.RUNNING
    assert office.said(key, "Progressing")[:2] == ("False", "InvalidInput")
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.COMPLETE


async def test_a_suspension_deletes_the_jobs_keeps_the_results_and_goes_on_from_them(
    office: Office,
) -> None:
    key = office.submit(small_run())
    for _ in range(2):
        await office.look(key)
        await office.cluster.step()
    await office.look(key)
    assert office.status(key).stage == "rollout" and office.shown(key).phase is Phase.RUNNING
    office.change(key, suspend=True)
    done = office.work.done.copy()
    for _ in range(3):
        await office.look(key)
        await office.cluster.step()
    assert office.said(key, "Suspended")[:2] == ("True", "Suspended")
    live = [
        job for job in office.api.jobs().values() if not job.get("status", {}).get("conditions")
    ]
    assert live == [] and office.work.done == done
    office.change(key, suspend=False)
    await office.to_the_end(key)
    assert office.said(key, "Suspended")[:2] == ("False", "Resumed")
    assert office.status(key).phase is Phase.COMPLETE and set(office.work.done.values()) == {1}
    assert office.status(key).counters.stages_failed == 0


async def test_a_cancelled_adaptation_ends_and_its_jobs_go(office: Office) -> None:
    key = office.submit(small_adaptation())
    await office.look(key)
    office.change(key, cancelled=True)
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.CANCELLED
    assert await is_cancelled(office.store, office.status(key).run), "the trainers are told"
    await office.cluster.step()
    assert await office.look(key) is None and not office.api.jobs()


async def test_a_failed_adaptation_is_swept_once_the_trainers_have_stopped(office: Office) -> None:
    office.work.fail = lambda task: InvalidInput("no") if task.stage == "rollout" else None
    key = office.submit(small_adaptation())
    await office.look(key)
    run = office.status(key).run
    claim, late = f"{run}/claims/t1-1.json", f"{run}/trainings/t1.json"
    office.store.write_bytes(claim, b"{}")
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.FAILED
    assert await office.look(key) == STOPPING_LOOK_SECONDS
    assert await is_cancelled(office.store, run), "the trainers are told"
    office.store.write_bytes(late, b"{}")
    office.store.remove(claim)
    assert await office.look(key) is None
    assert not office.store.exists(late)


async def test_a_trainer_that_was_killed_keeps_no_adaptation_unswept(
    office: Office, tmp_path: Path
) -> None:
    key = office.submit(small_adaptation())
    await office.look(key)
    office.change(key, cancelled=True)
    claim = f"{office.status(key).run}/claims/t1-1.json"
    office.store.write_bytes(claim, b"{}")
    os.utime(tmp_path / "store" / claim, (0, 0))
    await office.to_the_end(key)
    await office.cluster.step()
    assert await office.look(key) is None
    assert not office.store.exists(claim)


async def test_an_object_goes_in_its_time_after_its_end_and_its_results_stay(
    office: Office,
) -> None:
    key = office.submit(small_run(ttlSecondsAfterFinished=500))
    await office.to_the_end(key)
    left = await office.look(key)
    assert left is not None and 400 < left <= 500
    run = office.status(key).run
    office.cluster.now += left - 1
    assert await office.look(key) == pytest.approx(1)
    office.cluster.now += 1
    assert await office.look(key) is None
    assert office.body(key)["metadata"]["deletionTimestamp"]
    for _ in range(3):
        await office.cluster.step()
    assert await office.look(key) is None and office.count(JOBS) == 0
    assert office.store.exists(f"{run}/stages/r1-improve/shard-0000/summary.json")


async def test_an_object_whose_spec_is_none_goes_in_its_time_too(office: Office) -> None:
    key = office.submit(small_run(shards=0, ttlSecondsAfterFinished=500))
    left = await office.look(key)
    assert left == pytest.approx(500)
    assert office.said(key, "Failed")[1] == "InvalidInput"
    office.restart()
    office.cluster.now += 400
    assert await office.look(key) == pytest.approx(100)
    office.cluster.now += 100
    assert await office.look(key) is None
    await office.cluster.step()
    assert office.count(RUNS) == 0


async def test_a_summary_that_is_damaged_keeps_no_object_beyond_its_time(office: Office) -> None:
    key = office.submit(small_run(ttlSecondsAfterFinished=500))
    await office.to_the_end(key)
    run = office.status(key).run
    office.store.write_bytes(f"{run}/stages/r1-improve/shard-0000/summary.json", b"{")
    office.store.remove(f"{run}/swept")
    office.cluster.now += 500
    assert await office.look(key) is None
    assert office.body(key)["metadata"]["deletionTimestamp"]
    assert not office.store.exists(f"{run}/swept"), "whoever looks for the cause finds all of it"


async def test_an_object_that_is_going_is_left_alone(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)
    office.body(key)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    writes = office.writes()
    assert await office.look(key) is None and office.writes() == writes


async def test_what_only_the_way_needed_is_removed_once_from_the_store(
    office: Office, tmp_path: Path
) -> None:
    key = office.submit(small_run())
    await office.look(key)
    run = office.status(key).run
    office.store.write_bytes(f"{run}/trainings/t1.json", b"{}")
    of_killed = [tmp_path / "store" / run / name for name in ("adapters", "checkpoints")]
    for folder in of_killed:
        (folder / ".tmp-1-directory").mkdir(parents=True)
        (folder / ".tmp-1-directory/adapter_model.safetensors").write_bytes(b"half")
        (folder / ".tmp-2-file").write_bytes(b"half")
    await office.to_the_end(key)
    await office.look(key)
    assert not office.store.exists(f"{run}/trainings/t1.json")
    assert not [path for folder in of_killed for path in folder.glob(".tmp-*")]
    assert not await is_cancelled(office.store, run)
    office.store.write_bytes(f"{run}/trainings/late.json", b"{}")
    await office.look(key)
    assert office.store.exists(f"{run}/trainings/late.json"), "it is swept once"


async def test_what_could_not_be_removed_is_tried_again_without_a_restart(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = office.submit(small_run())
    await office.look(key)
    late = f"{office.status(key).run}/trainings/t1.json"
    office.store.write_bytes(late, b"{}")
    remove = ArtifactStore.remove

    def away(store: ArtifactStore, path: str) -> None:
        if path == late:
            raise Transient("the store is away")
        remove(store, path)

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "remove", away)
        await office.to_the_end(key)
        assert await office.look(key) == UNSWEPT_LOOK_SECONDS
    assert office.store.exists(late)
    assert await office.look(key) is None
    assert not office.store.exists(late)


async def test_a_status_that_the_server_refuses_is_told_once_by_an_event(office: Office) -> None:
    key = office.submit(small_run())

    def refuse(request: str, done: bool) -> None:
        if request == "replace_status restemruns" and not done:
            raise InvalidInput('strict decoding error: unknown field "status.progress"')

    office.api.fault = refuse
    for _ in range(2):
        with pytest.raises(StatusRefused):
            await office.look(key)
    office.restart()
    with pytest.raises(StatusRefused):
        await office.look(key)
    assert office.told(key) == [("Warning", "StatusRefused")]
    (event,) = (one for (kind, _, _), one in office.api.objects.items() if kind == EVENTS)
    assert "status.progress" in event["message"] and "helm upgrade" in event["message"]
    assert not office.api.jobs()
    office.api.fault = lambda request, done: None
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.COMPLETE


async def test_of_a_status_that_somebody_else_wrote_first_nothing_is_lost(office: Office) -> None:
    key = office.submit(small_run())
    stale: list[str] = []

    def change(request: str, done: bool) -> None:
        if request == "replace_status restemruns" and not done and not stale:
            stale.append(request)
            office.api.fault = lambda request, done: None
            office.api.change(key.resource, key.name)

    office.api.fault = change
    with pytest.raises(Conflict):
        await office.look(key)
    assert not office.api.jobs()
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.COMPLETE


def _store_is_away(office: Office, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second look at the epochs, which comes before a decision is saved."""
    looks = itertools.count()

    async def sometimes(*args: Any) -> None:
        if next(looks) % 2 == 0:
            raise Transient("the store is away")
        await check_epochs(*args)

    monkeypatch.setattr("controller_svc.k8s.world.check_epochs", sometimes)


def _others_write_first(office: Office, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody changes the object before each second status is written."""
    writes = itertools.count()

    def change(request: str, done: bool) -> None:
        if request.startswith("replace_status") and not done and next(writes) % 4 == 0:
            office.api.change(key.resource, key.name)

    office.api.fault = change


@pytest.mark.parametrize("trouble", [_store_is_away, _others_write_first])
async def test_what_is_not_saved_is_neither_told_nor_counted_and_no_trouble_writes_it(
    office: Office, monkeypatch: pytest.MonkeyPatch, trouble: Any
) -> None:
    key, failed = office.submit(small_adaptation()), 0
    trouble(office, key, monkeypatch)
    counted = office.metrics.registry.get_sample_value
    while not office.status(key).phase.terminal:
        before = office.status(key)
        try:
            await office.look(key)
        except (Transient, Conflict):
            failed += 1
            kept = office.status(key)
            assert kept.model_copy(update={"conditions": before.conditions}) == before
        ended = counted("seal_adaptations_ended_total", {"state": "Published"}) or 0
        told = office.told(key).count(("Normal", "Published"))
        assert ended == told == office.status(key).phase.terminal
        await office.cluster.step()
    assert failed > 2


def test_a_job_brings_its_owner_and_one_of_others_brings_nobody() -> None:
    owner = {
        "apiVersion": "seal.dev/v1alpha1", "kind": "Adaptation", "name": "notes",
        "uid": "1", "controller": True,
    }  # fmt: skip

    def key(**changes: object) -> object:
        metadata = {"name": "j", "namespace": "team", "ownerReferences": [owner | changes]}
        return key_of(Seen(resource=JOBS, kind="MODIFIED", body={"metadata": metadata}))

    assert str(key()).endswith("namespace='team', name='notes')")
    for other in ({"kind": "CronJob"}, {"apiVersion": "x/v1"}, {"controller": False}):
        assert key(**other) is None


async def test_one_that_has_gone_is_forgotten(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)
    gauge = office.metrics.registry.get_sample_value
    labels = {"kind": "RestEMRun", "phase": "Running"}
    assert gauge("seal_objects", labels) == 1
    del office.api.objects[(key.resource, key.namespace, key.name)]
    assert await office.look(key) is None
    assert gauge("seal_objects", labels) == 0
    assert gauge("seal_run_progress_ratio", {"namespace": "team", "run": "demo"}) is None
    with pytest.raises(NotFound):
        await office.api.get(key.resource, key.namespace, key.name)
