"""What the controller's benchmark leaves for a controller to find, and how it reads its metrics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.controller_process import Scraped
from benchmarks.job_watch import JobWatch
from benchmarks.mimicked import AHEAD, Summaries, run_object, spec_of
from benchmarks.mimicked_cluster import mimicked_cluster
from controller_svc.core import StageStatus, shards, stages
from controller_svc.k8s.api import JOBS
from controller_svc.k8s.source import Seen
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput
from seal.names import stage_name


async def test_summaries_are_there_before_a_run_comes_to_their_stages(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    spec = spec_of(run_object("demo", rounds=4, shards=2))
    plan, summaries = stages(spec), Summaries(store)
    assert len(plan) == 15
    for place, (round, stage) in enumerate(plan):
        await summaries.ahead("demo-1", spec, max(0, place - AHEAD + 1))
        current = StageStatus(
            name=stage_name(run="demo-1", round=round, stage=stage, attempt=1),
            stage=stage,
            round=round,
            shards=shards(spec, stage),
        )
        sums = await read_sums(store, "demo-1", current)
        assert sums is not None and sums.shards == current.shards


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ({0.1: 50.0, 0.25: 100.0, float("inf"): 100.0}, 0.5, 0.1),
        ({0.1: 50.0, 0.25: 100.0, float("inf"): 100.0}, 0.99, 0.247),
        ({0.1: 0.0, 0.25: 0.0, float("inf"): 4.0}, 0.5, 0.25),
    ],
)
def test_a_quantile_lies_within_its_bucket(
    counts: dict[float, float], share: float, seconds: float
) -> None:
    assert scraped(counts).quantile(share) == pytest.approx(seconds)


def test_what_was_before_a_time_does_not_count_for_it() -> None:
    before = scraped({0.1: 0.0, 0.25: 90.0, float("inf"): 100.0})
    after = scraped({0.1: 50.0, 0.25: 140.0, float("inf"): 150.0})
    between = after.since(before)
    assert (between.looks, between.buckets) == (50.0, {0.1: 50.0, 0.25: 50.0, float("inf"): 50.0})
    assert between.quantile(0.99) < 0.1 < before.quantile(0.5)


def scraped(counts: dict[float, float]) -> Scraped:
    return Scraped(
        leading=True,
        looks=counts[float("inf")],
        buckets=counts,
        requests=Counter(),
        events=Counter(),
    )


def test_a_job_counts_from_when_it_is_seen_to_when_it_completes() -> None:
    jobs, told = JobWatch(), list[str]()
    jobs.on_create = jobs.on_complete = told.append
    body = {"metadata": {"name": "a", "annotations": {"seal.dev/epoch": "7"}}, "status": {}}
    jobs.on_event(Seen(resource=JOBS, kind="ADDED", body=body))
    ended = body | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    for _ in range(2):
        jobs.on_event(Seen(resource=JOBS, kind="MODIFIED", body=ended))
    assert told == ["a", "a"] and jobs.epochs == {"a": 7} and jobs.seconds >= 0


def test_a_mimicked_cluster_names_the_program_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(InvalidInput, match="kube-apiserver") as refused, mimicked_cluster(tmp_path):
        pass
    assert refused.value.field == "KUBEBUILDER_ASSETS"
    assert [file.name for file in tmp_path.iterdir()] == ["etcd"], "nothing was started"
