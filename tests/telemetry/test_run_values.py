"""What the metrics say of a run is what its status says; a missing score is missing."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from controller_svc.core import Condition, Cost, Phase, RoundStatus, RunStatus, StageStatus
from controller_svc.core.observed import StageSums
from controller_svc.core.rounds import fold_stage
from controller_svc.counted import count_news
from controller_svc.k8s.objects import MAX_ROUNDS, of_object, to_object
from controller_svc.local.story import LocalStory
from controller_svc.run_values import half_width, run_values
from controller_svc.shown_runs import ShownRuns
from seal.metrics import Metrics
from seal.records import ScoreSum, Stage
from seal.restem.student import student_quantile
from seal.run_metrics import RUN_GAUGES
from seal.settings import RunSpec

BEFORE = RunStatus(run="demo", spec_sha256="0" * 64, device="cuda")
ROUND = RoundStatus(
    round=1,
    kept=3,
    dropped={"no_gain": 2},
    rollout={"edit": ScoreSum(n=4, total=2.0, squares=1.5)},
    validation={
        "edit": ScoreSum(n=1, total=0.25, squares=0.0625),
        "passage": ScoreSum(n=0, total=0.0, squares=0.0),
        "retained_policy": ScoreSum(n=10, total=9.0),
        "retained": ScoreSum(n=10, total=7.0),
    },
    measures={
        "rollout/gain": ScoreSum(n=4, total=0.4, squares=0.1),
        "rollout/distinct_2": ScoreSum(n=2, total=1.5),
        "rollout/ungraded": ScoreSum(n=20, total=5.0),
    },
    outcomes={"rollout/ok": 7, "rollout/diverged": 1, "improve/ok": 1},
    tokens={"rollout/train": 100, "improve/improve": 50},
    engine_seconds={"rollout/train": 2.5},
    seconds={"rollout": 3.0, "improve": 1.0},
)
COST = Cost(tokens=ROUND.tokens, engine_seconds=ROUND.engine_seconds)
AFTER = BEFORE.model_copy(
    update={"rounds": (ROUND,), "cost": COST, "round": 1, "stage": Stage.VALIDATE}
)


def test_every_value_belongs_to_a_gauge_and_has_its_labels() -> None:
    gauges = {gauge.name: gauge for gauge in RUN_GAUGES}
    values = run_values(AFTER, share=0.5, got_on_at=7.0)
    for name, found in values.items():
        assert all(len(labels) == len(gauges[name].labels) for labels in found), name


def test_rewards_forgetting_fates_and_costs_are_those_of_the_status() -> None:
    values = run_values(AFTER, share=0.5, got_on_at=7.0)
    assert values["seal_run_reward"]["1", "rollout", "edit"] == 0.5
    assert values["seal_run_reward"]["1", "validate", "edit"] == 0.25
    assert values["seal_run_retained_score"] == {("1", "policy"): 0.9, ("1", "edit"): 0.7}
    assert values["seal_run_gain"]["1", "rollout"] == pytest.approx(0.1)
    for gauge, at, score in (
        ("seal_run_reward", ("1", "rollout", "edit"), ROUND.rollout["edit"]),
        ("seal_run_gain", ("1", "rollout"), ROUND.measures["rollout/gain"]),
    ):
        low, mean, high = (values[gauge + end][at] for end in ("_low", "", "_high"))
        assert low < mean < high and high - mean == pytest.approx(half_width(score))
    assert values["seal_run_edits"] == {("1", "kept"): 3, ("1", "no_gain"): 2}
    assert values["seal_run_inner_loops"] == {
        ("1", "rollout", "ok"): 7,
        ("1", "rollout", "diverged"): 1,
    }
    assert values["seal_run_distinct_ratio"] == {("1", "rollout", "2"): 0.75}
    assert values["seal_run_ungraded_ratio"] == {("1", "rollout"): 0.25}
    assert values["seal_run_tokens"]["rollout", "train"] == 100
    assert values["seal_run_gpu_seconds"] == {("rollout", "train"): 2.5}
    assert values["seal_run_last_progress_timestamp_seconds"] == {(): 7.0}


def test_a_run_on_processors_has_engine_seconds_and_none_of_a_gpu() -> None:
    before, after = (one.model_copy(update={"device": "cpu"}) for one in (BEFORE, AFTER))
    values = run_values(after, share=0.5, got_on_at=7.0)
    assert "seal_run_engine_seconds" in values and "seal_run_gpu_seconds" not in values
    metrics = Metrics(CollectorRegistry())
    count_news(metrics, before, after)
    found = {family.name: family.samples for family in metrics.registry.collect()}
    assert found["seal_stage_engine_seconds"] and not found["seal_stage_gpu_seconds"]


def test_a_run_that_is_suspended_has_no_stage_at_work_and_is_not_late_when_it_goes_on() -> None:
    stopped = AFTER.model_copy(
        update={"conditions": (Condition(type="Suspended", status="True", reason="Suspended"),)}
    )
    shown = Metrics(CollectorRegistry()).runs
    runs, at = ShownRuns(shown), "seal_run_last_progress_timestamp_seconds"

    def told(status: RunStatus, now_seconds: float) -> dict[str, list[float]]:
        runs.show(("team", "demo"), status, share=0.5, now_seconds=now_seconds)
        found = {family.name: family for family in shown.collect()}
        return {name: [one.value for one in found[name].samples] for name in ("seal_run_stage", at)}

    assert told(AFTER, 1.0) == told(AFTER, 2.0) == {"seal_run_stage": [1.0], at: [1.0]}
    assert told(stopped, 3.0) == told(stopped, 4.0) == {"seal_run_stage": [], at: [3.0]}
    assert told(AFTER, 9000.0) == {"seal_run_stage": [1.0], at: [9000.0]}


def test_a_run_that_has_failed_has_no_stage_at_work() -> None:
    failed = AFTER.model_copy(update={"phase": Phase.FAILED})
    assert failed.stage is not None
    assert "seal_run_stage" not in run_values(failed, share=0.5, got_on_at=7.0)


def test_what_has_no_score_has_no_value_and_one_score_has_no_interval() -> None:
    values = run_values(AFTER, share=0.5, got_on_at=7.0)
    assert ("1", "validate", "passage") not in values["seal_run_reward"]
    assert set(values["seal_run_reward_low"]) == {("1", "rollout", "edit")}


def test_the_interval_is_students() -> None:
    scores = [0.2, 0.4, 0.9, 0.5]
    told = ScoreSum(n=4, total=sum(scores), squares=sum(score**2 for score in scores))
    assert half_width(told) == pytest.approx(3.182 * 0.294392 / 2, rel=0.01)
    for freedom, quantile in ((1, 12.706), (2, 4.303), (5, 2.571), (30, 2.042)):
        assert student_quantile(freedom) == pytest.approx(quantile, rel=0.01)
    assert half_width(ScoreSum(n=4, total=2.0)) is None


def test_what_stages_came_to_is_counted_once() -> None:
    metrics = Metrics(CollectorRegistry())
    for before, after in ((BEFORE, AFTER), (AFTER, AFTER)):
        count_news(metrics, before, after)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"{name}_total", labels)

    aged = ROUND.model_copy(update={"measures": {}})
    later = RoundStatus(round=5, measures={"rollout/ungraded": ScoreSum(n=4, total=1.0)})
    count_news(metrics, AFTER, AFTER.model_copy(update={"rounds": (aged, later)}))
    assert value("seal_inner_loops", outcome="ok") == 7
    assert value("seal_edits_kept") == 3 and value("seal_edits_dropped", reason="no_gain") == 2
    assert value("seal_answers", grade="ungraded") == 6
    assert value("seal_answers", grade="graded") == 18
    assert value("seal_stage_tokens", stage="rollout", kind="train") == 100
    assert value("seal_stage_engine_seconds", stage="rollout", kind="train") == 2.5
    assert value("seal_stage_gpu_seconds", stage="rollout", kind="train") == 2.5


def test_the_cost_of_a_run_of_more_rounds_than_an_object_shows_never_falls() -> None:
    status, shown = BEFORE, []
    for round in range(1, MAX_ROUNDS + 5):
        sums = StageSums(
            stage=Stage.ROLLOUT,
            round=round,
            shards=1,
            tokens={"train": 10},
            engine_seconds={"train": 0.5},
        )
        kept = of_object(to_object(fold_stage(status, sums, 0.0), generation=1))
        assert kept is not None
        status = kept
        shown.append(run_values(status, share=0.5, got_on_at=7.0))
    place = ("rollout", "train")
    assert len(status.rounds) == MAX_ROUNDS < len(shown)
    assert [one["seal_run_tokens"][place] for one in shown] == [
        10 * round for round in range(1, len(shown) + 1)
    ]
    assert shown[-1]["seal_run_gpu_seconds"] == {place: 0.5 * len(shown)}
    assert shown[-1]["seal_run_engine_seconds"] == shown[-1]["seal_run_gpu_seconds"]


def test_a_run_that_is_cancelled_on_a_laptop_stays_as_far_as_it_was() -> None:
    metrics = Metrics(CollectorRegistry())
    story = LocalStory(RunSpec(), namespace="default", name="demo", metrics=metrics)
    stage = StageStatus(name="s", stage=Stage.ROLLOUT, round=1, shards=2, attempt=1, completed="0")
    story.show(BEFORE.model_copy(update={"round": 1, "stage": Stage.ROLLOUT, "current": stage}))
    place = {"namespace": "default", "run": "demo"}
    before = metrics.registry.get_sample_value("seal_run_progress_ratio", place)
    assert before is not None and 0 < before < 1
    story.show(BEFORE.model_copy(update={"round": 1, "phase": Phase.CANCELLED}))
    assert metrics.registry.get_sample_value("seal_run_progress_ratio", place) == before
