"""A run that does not get on, or cannot start, says why in a condition and in an Event."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controller_office import Office, small_adaptation, small_run

from controller_svc.core import Phase
from controller_svc.k8s.api import EVENTS, JOBS, PODS, WORKLOADS
from controller_svc.k8s.children import CONTROLLER_UID_LABEL, WORKLOAD_JOB_LABEL
from controller_svc.k8s.controller import Key
from controller_svc.k8s.looking import WaitReason
from controller_svc.k8s.world import STARTING_LOOK_SECONDS, YOUNG_SECONDS
from seal.errors import Exhausted, InvalidInput, NotFound, Superseded, Transient
from seal.records import Stage
from seal.runs.task import ShardTask

Break = Callable[[Office, str, str], None]
"""Of (office, name of the Job, its uid)."""


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "store")


def no_quota(office: Office, job: str, uid: str) -> None:
    refuse(office, job, uid, "pods is forbidden: exceeded quota: small, requested: pods=1")


def no_account(office: Office, job: str, uid: str) -> None:
    refuse(office, job, uid, 'error looking up service account: serviceaccount "x" not found')


def refuse(office: Office, job: str, uid: str, message: str) -> None:
    event = {
        "metadata": {"name": f"{job}.1"}, "involvedObject": {"uid": uid},
        "reason": "FailedCreate", "message": message, "lastTimestamp": office.cluster.time(),
    }  # fmt: skip
    office.api.put(EVENTS, event)


def pod(office: Office, job: str, uid: str, status: object) -> None:
    metadata = {
        "name": f"{job}-0", "labels": {CONTROLLER_UID_LABEL: uid},
        "creationTimestamp": office.cluster.time(),
    }  # fmt: skip
    office.api.put(PODS, {"metadata": metadata, "status": status})
    office.api.change(JOBS, job, status={"active": 1, "ready": 0})


def no_image(office: Office, job: str, uid: str) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/seal:1"'}
    state = {"image": "nowhere/seal:1", "state": {"waiting": waiting}}
    pod(office, job, uid, {"phase": "Pending", "containerStatuses": [state]})


def no_node(office: Office, job: str, uid: str) -> None:
    why = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu",
    }  # fmt: skip
    pod(office, job, uid, {"phase": "Pending", "conditions": [why]})


def not_admitted(office: Office, job: str, uid: str) -> None:
    found: Any = office.api.jobs()[job]
    found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    office.api.change(JOBS, job, spec=found["spec"] | {"suspend": True})
    why = {
        "type": "QuotaReserved", "status": "False", "reason": "Pending",
        "message": "couldn't assign flavors: insufficient unused quota",
    }  # fmt: skip
    workload = {
        "metadata": {"name": f"job-{job}", "labels": {WORKLOAD_JOB_LABEL: uid}},
        "status": {"conditions": [why]},
    }
    office.api.put(WORKLOADS, workload)


WAITS: dict[WaitReason, tuple[Break, str]] = {
    WaitReason.QUOTA_EXCEEDED: (no_quota, "exceeded quota: small"),
    WaitReason.SERVICE_ACCOUNT_MISSING: (no_account, 'serviceaccount "x" not found'),
    WaitReason.IMAGE_UNAVAILABLE: (no_image, "nowhere/seal:1"),
    WaitReason.UNSCHEDULABLE: (no_node, "Insufficient cpu"),
    WaitReason.NOT_ADMITTED: (not_admitted, "queue gpus: couldn't assign flavors"),
}


async def started(office: Office, key: Key) -> tuple[str, str]:
    """(name, uid) of the Job of a run that has begun."""
    await office.look(key)
    ((name, job),) = office.api.jobs().items()
    office.cluster.now += YOUNG_SECONDS
    return name, job["metadata"]["uid"]


@pytest.mark.parametrize("reason", list(WAITS))
async def test_why_a_stage_waits_is_said_within_seconds_until_it_gets_on(
    office: Office, reason: WaitReason
) -> None:
    key = office.submit(small_run())
    name, uid = await started(office, key)
    keep, words = WAITS[reason]
    keep(office, name, uid)
    assert await office.look(key) == STARTING_LOOK_SECONDS
    status, said, message = office.said(key, "Progressing")
    assert (status, said) == ("False", reason) and words in message
    assert ("Warning", str(reason)) in office.told(key)
    assert office.status(key).phase is Phase.RUNNING
    spec: Any = office.api.jobs()[name]["spec"]
    office.api.change(JOBS, name, spec=spec | {"suspend": False})
    office.api.change(JOBS, name, status={"active": 1, "ready": 1})
    await office.look(key)
    assert office.said(key, "Progressing")[:2] == ("True", "PrepareRunning")


async def test_services_that_do_not_answer_are_said_while_workers_wait_for_them(
    office: Office,
) -> None:
    asked: set[Stage] = set()

    class Away:
        def why_not(self, stage: Stage) -> str:
            asked.add(stage)
            return "the trainer at t:1 does not answer: UNAVAILABLE"

    office.services = Away()
    office.restart()
    key = office.submit(small_run())
    name, _ = await started(office, key)
    office.api.change(JOBS, name, status={"active": 1, "ready": 1})
    await office.look(key)
    status, reason, message = office.said(key, "Progressing")
    assert (status, reason) == ("False", "ServicesUnavailable") and "the trainer at t:1" in message
    assert asked == {Stage.PREPARE}
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.COMPLETE


FAILS = {
    "missing dataset": (NotFound("there is no file 'train.jsonl'", field="data.train"), "NotFound"),
    "bad adapter reference": (
        InvalidInput("adapters/x is not the address of an adapter", field="spec.policy.path"),
        "InvalidInput",
    ),
}


@pytest.mark.parametrize("cause", list(FAILS))
@pytest.mark.parametrize("make", [small_run, small_adaptation])
async def test_what_a_worker_refuses_for_good_fails_the_object_with_its_words(
    office: Office, make: Callable[[], Any], cause: str
) -> None:
    error, reason = FAILS[cause]

    def fail(task: ShardTask) -> InvalidInput | NotFound:
        return error  # type: ignore[return-value]

    office.work.fail = fail
    key = office.submit(make())
    await office.to_the_end(key)
    status, said, message = office.said(key, "Failed")
    assert (status, said) == ("True", reason) and error.args[0] in message
    assert office.told(key)[-1] == ("Warning", reason)
    assert office.said(key, "Progressing")[:2] == ("False", "RunFailed")


async def test_a_job_that_a_quota_refuses_is_said_and_asked_for_again(office: Office) -> None:
    key = office.submit(small_run())

    def full(request: str, done: bool) -> None:
        if request == "create jobs":
            raise Exhausted('jobs.batch "x" is forbidden: exceeded quota: few')

    office.api.fault = full
    with pytest.raises(Exhausted):
        await office.look(key)
    status, reason, message = office.said(key, "Progressing")
    assert (status, reason) == ("False", "Exhausted") and "exceeded quota: few" in message
    writes = office.writes()
    with pytest.raises(Exhausted):
        await office.look(key)
    assert office.writes()[len(writes) :] == ["create jobs"], "what is said stays said"
    office.api.fault = lambda request, done: None
    await office.to_the_end(key)
    assert office.shown(key).phase is Phase.COMPLETE


async def test_a_store_that_is_away_is_said_once_it_is_needed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = office.submit(small_run())

    def away(path: str, content: bytes) -> bytes:
        raise Transient("the store is away: EIO")

    monkeypatch.setattr(office.store, "create_bytes", away)
    with pytest.raises(Transient):
        await office.look(key)
    assert office.said(key, "Progressing") == ("False", "Transient", "the store is away: EIO")


async def test_of_an_api_server_that_is_away_no_object_is_told(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)

    def away(request: str, done: bool) -> None:
        if request == "list jobs":
            raise Transient("GET /apis/batch: no reply", away="API server")

    office.api.fault = away
    before = office.shown(key)
    with pytest.raises(Transient):
        await office.look(key)
    assert office.shown(key) == before and office.writes()[-1] != "replace_status restemruns"


async def test_one_whom_another_controller_follows_says_nothing_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = office.submit(small_run())
    await office.look(key)
    before = office.shown(key)
    await office.cluster.step()

    async def superseded(*_: object) -> None:
        raise Superseded("a newer controller has started the stage")

    monkeypatch.setattr("controller_svc.k8s.world.check_epochs", superseded)
    with pytest.raises(Superseded):
        await office.look(key)
    assert office.shown(key) == before


async def test_a_job_of_the_same_name_that_is_anothers_is_said(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)
    name = office.status(key).current.name  # type: ignore[union-attr]
    del office.api.objects[(JOBS, "team", name)]
    office.api.put(JOBS, {"metadata": {"name": name}})
    with pytest.raises(Exception, match="belongs to another"):
        await office.look(key)
    assert office.said(key, "Progressing")[:2] == ("False", "Conflict")
