"""What all looks need is asked for once, and a view that is a moment old does no harm."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from controller_office import Office, small_adaptation, small_run
from eventually import until
from memory_api import MemoryApi

from controller_svc.core import Phase
from controller_svc.k8s.api import EVENTS, JOBS, PODS, RUNS
from controller_svc.k8s.shared_reads import FRESH_SECONDS, SharedReads
from controller_svc.k8s.source import EventKind, Seen
from controller_svc.k8s.turn import Turn
from seal.errors import Conflict, NotFound, PreconditionFailed


def job(name: str, run: str, namespace: str = "team") -> Any:
    metadata = {"name": name, "namespace": namespace, "labels": {"seal.dev/run": run}}
    return {"metadata": metadata, "spec": {"completions": 3, "template": {"spec": {}}}}


async def names(reads: SharedReads, run: str, namespace: str = "team") -> list[str]:
    found: Any = await reads.list(JOBS, namespace, labels=f"seal.dev/run={run}")
    return sorted(one["metadata"]["name"] for one in found)


async def test_the_jobs_of_a_run_are_those_that_the_watch_tells_of() -> None:
    api = MemoryApi()
    reads = SharedReads(api)

    def tell(kind: EventKind, body: Any) -> None:
        reads.see(Seen(resource=JOBS, kind=kind, body=body))

    for one in (job("a", "demo"), job("b", "demo"), job("c", "other"), job("d", "demo", "else")):
        tell("LISTED", one)
    assert await names(reads, "demo") == ["a", "b"]
    tell("MODIFIED", job("a", "demo") | {"status": {"active": 1}})
    found: Any = await reads.list(JOBS, "team", labels="seal.dev/run=demo")
    assert found[0]["status"] == {"active": 1} and "template" not in found[0]["spec"]
    for name in ("a", "b"):
        tell("DELETED", job(name, "demo"))
    assert await names(reads, "demo") == [] and await names(reads, "other") == ["c"]
    assert api.requests == []


async def test_refusals_are_asked_for_once_for_all_jobs_of_a_namespace() -> None:
    api, now = MemoryApi(), 0.0
    reads = SharedReads(api, clock=lambda: now)
    for number in range(3):
        event = {
            "metadata": {"name": f"e{number}"}, "involvedObject": {"uid": f"u{number}"},
            "reason": "FailedCreate" if number else "SuccessfulCreate",
        }  # fmt: skip
        api.put(EVENTS, event)

    async def told(uid: str) -> int:
        return len(await reads.list(EVENTS, "team", fields=f"involvedObject.uid={uid}"))

    assert await asyncio.gather(*(told(f"u{number}") for number in range(3))) == [0, 1, 1]
    assert api.requests == ["list events"]
    now += FRESH_SECONDS
    await told("u1")
    assert api.requests == ["list events"] * 2


def run_seen(kind: EventKind, version: int, phase: str = "") -> Seen:
    metadata: Any = {"name": "demo", "namespace": "team", "resourceVersion": str(version)}
    return Seen(resource=RUNS, kind=kind, body={"metadata": metadata, "status": {"phase": phase}})


async def test_a_run_is_read_as_the_watch_told_it_or_as_it_was_written() -> None:
    api = MemoryApi()
    made: Any = api.put(RUNS, {"metadata": {"name": "demo"}})
    version = int(made["metadata"]["resourceVersion"])
    reads = SharedReads(api)
    reads.see(Seen(resource=RUNS, kind="LISTED", body=made))
    assert await reads.get(RUNS, "team", "demo") == made
    written = await reads.replace_status(RUNS, "team", made | {"status": {"phase": "Running"}})
    reads.see(run_seen("MODIFIED", version, "Pending"))
    assert await reads.get(RUNS, "team", "demo") == written, "older news are passed over"
    reads.see(run_seen("MODIFIED", version + 1000, "Complete"))
    found: Any = await reads.get(RUNS, "team", "demo")
    assert found["status"]["phase"] == "Complete"
    reads.see(run_seen("LISTED", version, "Pending"))
    found = await reads.get(RUNS, "team", "demo")
    assert found["status"]["phase"] == "Pending", "a list is the truth"
    assert [request.split()[0] for request in api.requests] == ["replace_status"]


async def test_a_run_is_asked_for_while_what_is_known_is_out_of_date() -> None:
    api = MemoryApi()
    made: Any = api.put(RUNS, {"metadata": {"name": "demo"}})
    reads = SharedReads(api)
    old = run_seen("LISTED", 0)
    reads.see(old)
    with pytest.raises(Conflict):
        await reads.replace_status(RUNS, "team", old.body)
    assert await reads.get(RUNS, "team", "demo") == made
    reads.see(Seen(resource=RUNS, kind="MODIFIED", body=made))
    assert await reads.get(RUNS, "team", "demo") == made
    assert [request.split()[0] for request in api.requests] == ["replace_status", "get"]


@pytest.mark.parametrize("out_of_date", [False, True])
async def test_who_has_gone_is_not_asked_for(out_of_date: bool) -> None:
    """With its namespace went the right to ask: what is refused would be asked for for ever."""
    api = MemoryApi()
    reads, told = SharedReads(api), run_seen("LISTED", 0)
    reads.see(told)
    if out_of_date:
        with pytest.raises(NotFound):
            await reads.replace_status(RUNS, "team", told.body)
    reads.see(run_seen("DELETED", 0))
    with pytest.raises(NotFound):
        await reads.get(RUNS, "team", "demo")
    assert "get restemruns" not in api.requests


async def test_objects_of_a_deleted_namespace_are_forgotten(tmp_path: Path) -> None:
    office = Office(tmp_path / "store")
    reads = SharedReads(office.api)
    office.controller._api = reads
    key = office.submit(small_run())
    turn = Turn(
        office.controller, watch=office.api.watch, namespaces=["team"], workers=1, reads=reads
    )
    task = asyncio.create_task(turn.run())
    await until(lambda: office.count(JOBS) == 1)

    def refuse(request: str, done: bool) -> None:
        raise PreconditionFailed("forbidden")  # its Role went first

    office.api.fault = refuse
    for one in list(office.api.objects):
        office.api.remove(one)
    shown = partial(office.metrics.registry.get_sample_value, "seal_objects")
    await until(lambda: not shown({"kind": "RestEMRun", "phase": "Running"}))
    assert key.name and not len(turn._workers)
    task.cancel()
    await asyncio.wait({task})


async def test_all_else_is_asked_for_anew() -> None:
    api = MemoryApi()
    reads = SharedReads(api)
    for kind, labels in ((PODS, "seal.dev/run=demo"), (JOBS, "other=x"), (EVENTS, "")):
        await reads.list(kind, "team", labels=labels)
    made = await reads.create(JOBS, "team", job("a", "demo"))
    await reads.replace_status(JOBS, "team", made | {"status": {"active": 1}})
    await reads.get(JOBS, "team", "a")
    await reads.delete(JOBS, "team", "a", uid=made["metadata"]["uid"])  # type: ignore[index]
    assert [request.split()[0] for request in api.requests] == [
        *["list"] * 3, "create", "replace_status", "get", "delete",
    ]  # fmt: skip


async def test_a_whole_turn_comes_to_the_same_ends_without_a_list_of_jobs(tmp_path: Path) -> None:
    office = Office(tmp_path / "store")
    reads = SharedReads(office.api)
    office.controller._api = reads
    keys = [office.submit(small_run()), office.submit(small_adaptation())]
    turn = Turn(
        office.controller, watch=office.api.watch, namespaces=["team"], workers=4, reads=reads
    )
    task = asyncio.create_task(turn.run())

    def settled() -> bool:
        statuses = [job.get("status") or {} for job in office.api.jobs().values()]
        ended = [office.body(key).get("status", {}).get("finishedSeconds") for key in keys]
        return any(not status.get("conditions") for status in statuses) or all(ended)

    for _ in range(12):
        await until(settled)
        await office.cluster.step()
    await until(lambda: all(office.status(key).phase is Phase.COMPLETE for key in keys))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert Counter(office.api.requests) == {
        "create jobs": 9,
        "replace_status restemruns": 6,
        "replace_status adaptations": 5,
    }
    made = [job["metadata"]["name"] for job in office.api.jobs().values()]
    assert all(name.endswith("-a1") for name in made) and len(made) == 9
