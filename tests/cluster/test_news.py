"""A turn looks at what may need it, and not at each thing that the watch tells."""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_objects import adaptation
from controller_office import Office, small_run
from eventually import until

from controller_svc.core.suspension import is_suspended
from controller_svc.k8s.api import ADAPTATIONS, JOBS, RUNS
from controller_svc.k8s.controller import Key
from controller_svc.k8s.news import NOW, SOON_SECONDS, News
from controller_svc.k8s.publishing.publication import WITHDRAW_ANNOTATION
from controller_svc.k8s.source import EventKind, Seen
from controller_svc.k8s.turn import Turn
from controller_svc.k8s.wanted import ReadSpecs
from seal.errors import Transient
from seal.metrics import metrics
from seal.resources import RUN_KIND


def job(**status: object) -> Any:
    metadata = {"name": "demo-r0-prepare-a1", "namespace": "team", "uid": "u1"}
    return {"metadata": metadata, "status": status}


def told(kind: EventKind, body: Any) -> Seen:
    return Seen(resource=JOBS, kind=kind, body=body)


def ended(type: str = "Complete") -> list[dict[str, str]]:
    return [{"type": type, "status": "True"}]


@pytest.mark.parametrize(
    ("before", "now", "after_seconds"),
    [
        ({}, {"conditions": ended()}, NOW),
        ({"active": 1}, {"conditions": ended("Failed")}, NOW),
        ({"active": 2}, {"active": 1, "failedIndexes": "0"}, NOW),
        ({}, {"active": 1}, SOON_SECONDS),
        ({"active": 2}, {"active": 1, "completedIndexes": "0"}, SOON_SECONDS),
        ({"active": 1}, {"active": 1, "uncountedTerminatedPods": {}}, None),
    ],
)
def test_an_end_or_a_failure_is_looked_at_now_and_what_only_counts_pods_soon(
    before: Any, now: Any, after_seconds: float | None
) -> None:
    news = News()
    assert news.after_seconds(told("ADDED", job(**before))) == SOON_SECONDS
    assert news.after_seconds(told("MODIFIED", job(**now))) == after_seconds
    assert news.after_seconds(told("LISTED", job(**now))) == NOW


def test_a_withdrawal_and_its_end_are_looked_at_now() -> None:
    news, body = News(), adaptation("notes")
    body["metadata"] |= {"namespace": "team", "uid": "u1"}

    def after_seconds(kind: EventKind, **annotations: str) -> float | None:
        metadata = body["metadata"] | {"annotations": annotations}
        return news.after_seconds(
            Seen(resource=ADAPTATIONS, kind=kind, body=body | {"metadata": metadata})
        )

    assert after_seconds("ADDED") == NOW
    assert after_seconds("MODIFIED") is None
    assert after_seconds("MODIFIED", **{WITHDRAW_ANNOTATION: "true"}) == NOW
    assert after_seconds("MODIFIED") == NOW


def test_a_job_whose_condition_has_no_time_is_news_as_any_other() -> None:
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": None}
    news = News()
    assert news.after_seconds(told("ADDED", job())) == SOON_SECONDS
    assert news.after_seconds(told("MODIFIED", job(conditions=[condition]))) == NOW


async def test_a_turn_that_has_ended_leaves_no_queue_to_the_metrics(tmp_path: Path) -> None:
    office = Office(tmp_path / "store")
    turn = Turn(office.controller, watch=office.api.watch, namespaces=["team"], workers=2)
    running = asyncio.create_task(turn.run())
    office.submit(small_run())
    length = partial(metrics.registry.get_sample_value, "seal_controller_queue_length")
    await until(lambda: office.count(JOBS) == 1 and length() == 1)
    running.cancel()
    await asyncio.wait({running})
    assert length() == 0


async def test_a_look_in_vain_took_its_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(key: Key) -> None:
        raise Transient("the API server is away")

    office = Office(tmp_path / "store")
    monkeypatch.setattr(office.controller, "reconcile", fail)
    turn = Turn(office.controller, watch=office.api.watch, namespaces=["team"], workers=2)
    name, kind = "seal_reconcile_seconds_count", {"kind": RUN_KIND}
    count = partial(metrics.registry.get_sample_value, name, kind)
    before = count() or 0
    running = asyncio.create_task(turn.run())
    office.submit(small_run())
    await until(lambda: (count() or 0) > before)
    running.cancel()
    await asyncio.wait({running})


async def test_a_turn_looks_at_no_echo_of_its_own_writes(tmp_path: Path) -> None:
    office = Office(tmp_path / "store")
    turn = Turn(office.controller, watch=office.api.watch, namespaces=["team"], workers=2)
    running = asyncio.create_task(turn.run())
    key = office.submit(small_run())
    await until(lambda: office.count(JOBS) == 1)
    await asyncio.sleep(0.1)
    assert office.api.requests.count("get restemruns") == 1, "its own writes bring no look"
    office.change(key, suspend=True)
    await until(lambda: is_suspended(office.status(key)))
    running.cancel()
    await asyncio.wait({running})


async def test_a_spec_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(tmp_path / "store")
    body = copy.deepcopy(office.body(office.submit(small_run())))
    specs = ReadSpecs()
    first = specs.read(RUNS, copy.deepcopy(body))
    again = specs.read(RUNS, copy.deepcopy(body) | {"status": {}})
    assert again.manifest is first.manifest and again.body["status"] == {}
    body["spec"]["suspend"] = True
    assert specs.read(RUNS, copy.deepcopy(body)).cluster.suspend and not first.cluster.suspend
