"""What a Job, its pods, its events and its Workload say of a stage's attempt."""

from __future__ import annotations

from typing import Any

import pytest

from controller_svc.core import FailedIndex, StageObserved
from controller_svc.k8s.looking import (
    EventSeen,
    JobSeen,
    PodSeen,
    WaitReason,
    WorkloadSeen,
    observe_stage,
    waiting,
)
from seal.errors import Exhausted, InvalidInput, SealError, Superseded
from seal.termination import failure_of

DONE = {"type": "Complete", "status": "True", "reason": "CompletionsReached"}
KILLED = {"terminated": {"exitCode": 137, "reason": "Error"}}


def job(
    *, queue: str = "", suspend: bool = False, parallelism: int = 2, **status: object
) -> JobSeen:
    labels = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    return JobSeen.model_validate(
        {
            "metadata": {"name": "demo-r1-rollout-a1", "labels": labels, "uid": "1"},
            "spec": {"suspend": suspend, "completions": 4, "parallelism": parallelism},
            "status": {"ready": 0, **status},
        }
    )


def pod(
    index: int, phase: str = "Failed", *, at: int = 0, state: object = None, **status: object
) -> PodSeen:
    containers = [{"name": "worker", "image": "seal:1", "state": state}] if state else []
    return PodSeen.model_validate(
        {
            "metadata": {
                "name": f"p{index}-{at}",
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "creationTimestamp": f"2026-01-01T00:00:{at:02d}Z",
            },
            "status": {"phase": phase, "containerStatuses": containers, **status},
        }
    )


def ended(index: int, code: int, message: str = "", *, at: int = 0, reason: str = "Error") -> Any:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return pod(index, state=state, at=at)


def beside_an_agent(seen: PodSeen) -> PodSeen:
    """The kubelet names containers in the order of their names."""
    body = seen.model_dump(mode="json", by_alias=True)
    agent = {"name": "agent", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    body["status"]["containerStatuses"].insert(0, agent)
    return PodSeen.model_validate(body)


def refused(message: str, *, at: int = 30) -> EventSeen:
    return EventSeen.model_validate(
        {
            "reason": "FailedCreate",
            "message": message,
            "eventTime": None,
            "lastTimestamp": f"2026-01-01T00:00:{at:02d}Z",
        }
    )


def workload(type: str, status: str, message: str) -> WorkloadSeen:
    conditions = [{"type": type, "status": status, "reason": "Pending", "message": message}]
    return WorkloadSeen.model_validate({"status": {"conditions": conditions}})


def told(error: SealError) -> str:
    return failure_of(error).model_dump_json(by_alias=True, exclude_defaults=True)


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
SECRET = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu",
}
QUOTA = 'pods "p" is forbidden: exceeded quota: small, requested: pods=1'
SECURITY = 'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot'
ACCOUNT = (
    'pods "p" is forbidden: error looking up service account a/b: serviceaccount "b" not found'
)
WAITS = {
    "no quota": (job(), [], [refused(QUOTA)], None, WaitReason.QUOTA_EXCEEDED),
    "pod security": (job(), [], [refused(SECURITY)], None, WaitReason.POD_SECURITY),
    "service account": (
        job(), [], [refused(ACCOUNT)], None, WaitReason.SERVICE_ACCOUNT_MISSING,
    ),
    "a webhook": (job(), [], [refused("denied by x")], None, WaitReason.POD_REFUSED),
    "image": (
        job(active=2), [pod(0, "Pending", state=PULL)], [], None, WaitReason.IMAGE_UNAVAILABLE,
    ),
    "secret": (
        job(active=2), [pod(0, "Pending", state=SECRET)], [], None,
        WaitReason.CONTAINER_NOT_STARTED,
    ),
    "no image of a container that a mesh put before it": (
        job(active=1),
        [pod(0, "Pending", initContainerStatuses=[{"name": "proxy", "state": PULL}])],
        [], None, WaitReason.IMAGE_UNAVAILABLE,
    ),
    "no node": (
        job(active=2), [pod(0, "Running"), pod(1, "Pending", conditions=[UNSCHEDULABLE])], [],
        None, WaitReason.UNSCHEDULABLE,
    ),
    "not admitted": (
        job(queue="gpus", suspend=True), [], [],
        workload("QuotaReserved", "False", "insufficient unused quota"), WaitReason.NOT_ADMITTED,
    ),
    "evicted by Kueue": (
        job(queue="gpus", suspend=True), [], [],
        workload("Evicted", "True", "Preempted by another"), WaitReason.NOT_ADMITTED,
    ),
    "no Workload yet": (job(queue="gpus", suspend=True), [], [], None, WaitReason.NOT_ADMITTED),
    "suspended": (job(suspend=True), [], [], None, WaitReason.SUSPENDED),
}  # fmt: skip


EVICTED, NO_QUOTA = ("Evicted", "True", "Preempted"), ("QuotaReserved", "False", "no quota for gpu")
NO_ROOM = ("Admitted", "False", "The workload has no reservation")


@pytest.mark.parametrize(
    ("conditions", "newest"),
    [
        ([(EVICTED, 1), (NO_QUOTA, 2), (NO_ROOM, 2)], "no quota for gpu"),
        ([(NO_QUOTA, 1), (EVICTED, 2), (NO_ROOM, 3)], "Preempted"),
        # Both within one second: Kueue goes on to write what it waits for into the second one
        ([(EVICTED, 1), (NO_ROOM, 2), (NO_QUOTA, 1)], "no quota for gpu"),
        ([(("Evicted", "False", "old"), 2), (NO_ROOM, 1)], "The workload has no reservation"),
    ],
)
def test_of_what_kueue_says_the_newest_is_told(
    conditions: list[tuple[tuple[str, str, str], int]], newest: str
) -> None:
    told = [
        {"type": type, "status": status, "message": message,
         "lastTransitionTime": f"2026-01-01T00:00:{second:02}Z"}
        for (type, status, message), second in conditions
    ]  # fmt: skip
    load = WorkloadSeen.model_validate({"status": {"conditions": told}})
    why = waiting(job(queue="gpus", suspend=True), workload=load)
    assert why is not None and why.message == f"queue gpus: {newest}"


@pytest.mark.parametrize("name", list(WAITS))
def test_why_an_attempt_waits_is_said(name: str) -> None:
    seen, pods, events, load, reason = WAITS[name]
    why = waiting(seen, pods=pods, events=events, workload=load)
    assert why is not None and why.reason == reason
    cause = [one.message for one in events]
    cause += [one.message for one in (load.status.conditions if load else ())]
    assert all(words in why.message for words in cause)
    stage = observe_stage(seen, pods=pods, events=events, workload=load)
    wanted = StageObserved(waits=reason, message=why.message)
    assert stage == wanted, "waiting is neither failed nor ended"


CREATING = {"waiting": {"reason": "ContainerCreating"}}
GOES_ON = {
    "just made": (job(), [], []),
    "starting": (job(active=2), [pod(0, "Pending", state=CREATING)], []),
    "a refusal that is over": (job(active=1), [pod(0, "Running", at=40)], [refused(QUOTA)]),
    "as many pods as wanted": (job(active=2), [], [refused(QUOTA, at=59)]),
    "all but done": (job(completedIndexes="0-2", active=1), [], [refused(QUOTA)]),
    "another event": (
        job(), [], [EventSeen.model_validate({"reason": "SuccessfulCreate", "message": QUOTA})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GOES_ON))
def test_what_gets_on_has_no_reason_to_wait(name: str) -> None:
    seen, pods, events = GOES_ON[name]
    assert waiting(seen, pods=pods, events=events) is None


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        (
            [ended(1, 2, told(InvalidInput("wrong seed")))],
            FailedIndex(reason="InvalidInput", message="wrong seed", permanent=True),
        ),
        (
            [ended(1, 43, told(Exhausted("full", retry_after_seconds=30.0)))],
            FailedIndex(reason="Exhausted", message="full", retry_after_seconds=30.0),
        ),
        (
            [ended(1, 2, told(Superseded("older")))],
            FailedIndex(reason="Superseded", message="older"),
        ),
        (
            [ended(1, 137, reason="OOMKilled")],
            FailedIndex(
                reason="OOMKilled", message="pod p1-0 was killed at its memory limit: give it more"
            ),
        ),
        (
            [ended(1, 1, "Traceback")],
            FailedIndex(
                reason="Error", message="pod p1-0 ended with exit code 1 and said nothing more"
            ),
        ),
        (
            [pod(1, reason="Evicted", message="The node was low on memory")],
            FailedIndex(reason="Evicted", message="pod p1-0: The node was low on memory"),
        ),
        (
            [pod(1, state=KILLED, reason="Evicted", message="Pod uses more than 1Gi of storage")],
            FailedIndex(reason="Evicted", message="pod p1-0: Pod uses more than 1Gi of storage"),
        ),
        (
            [beside_an_agent(ended(1, 2, told(InvalidInput("wrong seed"))))],
            FailedIndex(reason="InvalidInput", message="wrong seed", permanent=True),
        ),
        (
            [
                ended(1, 42, told(InvalidInput("old")), at=1),
                ended(1, 43, told(Exhausted("new")), at=9),
            ],
            FailedIndex(reason="Exhausted", message="new"),
        ),
        (
            [ended(2, 2, told(InvalidInput("of another index")))],
            FailedIndex(reason="Unknown", message="its pod is gone, and why it failed with it"),
        ),
    ],
)  # fmt: skip
def test_why_an_index_was_given_up_is_what_its_newest_pod_says(
    pods: list[PodSeen], expected: FailedIndex
) -> None:
    seen = job(active=1, completedIndexes="0,3", failedIndexes="1")
    stage = observe_stage(seen, pods=pods)
    assert stage == StageObserved(completed="0,3", failed={1: expected})


def test_a_pod_that_failed_but_is_tried_again_is_no_failed_shard() -> None:
    seen = job(active=2)
    assert observe_stage(seen, pods=[ended(1, 43, told(Exhausted("full")))]) == StageObserved()


def test_a_stage_has_ended_by_its_jobs_condition_alone() -> None:
    done = observe_stage(job(conditions=[DONE], completedIndexes="0-3"))
    assert done == StageObserved(completed="0-3", ended=True)
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    stopped = observe_stage(job(conditions=[late], completedIndexes="0"))
    assert stopped == StageObserved(completed="0", ended=True, message="DeadlineExceeded: too long")
    coming = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}
    assert not observe_stage(job(conditions=[coming], active=1)).ended, "its pods still end"
    assert not observe_stage(job()).ended, "no pods to be seen is no end"
