"""However many runs come and go, the series are those of the runs at work."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from test_run_values import AFTER, BEFORE

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.jobs import Owner
from seal.metrics import Metrics
from seal.resources import RUN_KIND
from seal.run_metrics import SHOWN_AFTER_END_SECONDS


def series(metrics: Metrics) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def owner(number: int) -> Owner:
    return Owner(kind=RUN_KIND, namespace="team", name=f"run-{number}", uid=str(number))


def live(gauges: ObjectGauges, number: int, now_seconds: float) -> None:
    done: RunStatus = AFTER.model_copy(update={"phase": Phase.COMPLETE, "stage": None})
    for before, after in ((BEFORE, BEFORE), (BEFORE, AFTER), (AFTER, done)):
        gauges.show(owner(number), after, percent=50, now_seconds=now_seconds)
        gauges.count(before, after)


def test_fifty_runs_leave_as_many_series_as_one() -> None:
    now = 0.0
    metrics = Metrics(CollectorRegistry(), clock=lambda: now)
    gauges = ObjectGauges(metrics)
    live(gauges, 0, now)
    now += SHOWN_AFTER_END_SECONDS + 1
    one = series(metrics)
    assert not [found for found in one if ("run", "run-0") in found[1]]
    for number in range(1, 51):
        live(gauges, number, now)
    assert len(series(metrics)) > len(one), "runs that have just ended are still shown"
    now += SHOWN_AFTER_END_SECONDS + 1
    assert series(metrics) == one


def test_a_run_that_has_ended_goes_in_its_time_however_often_it_is_looked_at() -> None:
    now = 0.0
    metrics = Metrics(CollectorRegistry(), clock=lambda: now)
    place = ("team", "demo")
    values = {"seal_run_progress_ratio": {(): 1.0}}
    while now <= SHOWN_AFTER_END_SECONDS:
        metrics.runs.show(place, values, ended=True)
        assert [found for found in series(metrics) if found[0] == "seal_run_progress_ratio"]
        now += 60.0
    assert not [found for found in series(metrics) if found[0] == "seal_run_progress_ratio"]


def test_a_run_that_had_ended_when_it_was_first_seen_is_not_shown() -> None:
    metrics = Metrics(CollectorRegistry())
    done = AFTER.model_copy(update={"phase": Phase.COMPLETE, "stage": None})
    ObjectGauges(metrics).show(owner(1), done, percent=100, now_seconds=0.0)
    assert not [found for found in series(metrics) if found[0].startswith("seal_run_")]


def test_a_controller_that_leads_no_more_shows_no_run() -> None:
    metrics = Metrics(CollectorRegistry())
    gauges = ObjectGauges(metrics)
    gauges.show(owner(1), AFTER, percent=50, now_seconds=0.0)
    assert [found for found in series(metrics) if found[0].startswith("seal_run_")]
    gauges.clear()
    assert not [found for found in series(metrics) if found[0].startswith("seal_run_")]


def test_a_run_got_on_when_its_share_grew_and_not_when_it_was_only_looked_at() -> None:
    metrics = Metrics(CollectorRegistry())
    gauges = ObjectGauges(metrics)
    name = "seal_run_last_progress_timestamp_seconds"

    def told(share: float | None, now_seconds: float) -> float | None:
        gauges.show(owner(1), AFTER, percent=50, now_seconds=now_seconds, stage_share=share)
        labels = {"namespace": "team", "run": "run-1"}
        return metrics.registry.get_sample_value(name, labels)

    assert told(None, 1.0) == 1.0
    assert told(0.2, 2.0) == 2.0
    assert told(0.2, 3.0) == told(None, 4.0) == 2.0
    assert told(0.3, 5.0) == 5.0
