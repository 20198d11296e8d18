"""Who learns and is asked: the policy that wrote the edits, or the base model alone."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from controller_harness import POLICY, RUN, Workplace, small_spec, workplace
from fake_services import Fakes

from controller_svc.cli.workload import workload
from controller_svc.core import stages
from controller_svc.worker.prepare import load_data
from controller_svc.worker.progress import TaskProgress
from seal.errors import PreconditionFailed
from seal.records import AdapterReference, Stage
from seal.report.numbers.source import read_run
from seal.runs.shards import ShardStore
from seal.settings import InnerLoopSettings, OptimizerSettings, RunSpec
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

OTHER = AdapterReference(path="fake/other", sha256="c" * 64)
Asked = (
    generator_pb2.GenerateEditsRequest
    | trainer_pb2.TrainAdapterRequest
    | evaluator_pb2.EvaluateRequest
)


def spec_of(directory: Path, student: str) -> RunSpec:
    inner = {"student": student, "repeats": 2, "optimizer": OptimizerSettings(epochs=2)}
    return small_spec(directory, inner=InnerLoopSettings.model_validate(inner))


def beneath(place: Workplace, kind: str, part: str) -> set[str]:
    """Digests of the policies of all requests of a kind whose id has that part."""
    found = set()
    for name in place.asked(kind):
        if part in name:
            request = place.fakes.requests[f"{kind} {name}"]
            assert isinstance(request, Asked)
            found.add(request.policy.adapter.sha256)
    assert found, f"nothing like {part} was asked"
    return found


@pytest.mark.parametrize("stage", [Stage.ROLLOUT, Stage.VALIDATE])
async def test_over_the_base_the_policy_writes_and_nothing_is_trained_or_asked_on_it(
    tmp_path: Path, stage: Stage
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        await place.run(stage, round=1, policy=POLICY)
        assert beneath(place, "generate", "/edits/") == {POLICY.sha256}
        assert beneath(place, "train", "/edit/") == {""}
        assert beneath(place, "evaluate", "/edit/") == {""}
        assert beneath(place, "evaluate", "/baseline/") == {""}


async def test_retained_questions_of_the_policy_alone_are_asked_of_the_policy(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        await place.run(Stage.VALIDATE, round=1, policy=POLICY)
        assert beneath(place, "evaluate", "validate/retained/") == {POLICY.sha256}
        adapted = [name for name in place.asked("evaluate") if name.endswith("/retained")]
        assert adapted
        assert {beneath(place, "evaluate", name).pop() for name in adapted} == {""}


async def test_after_a_warm_start_the_base_is_asked_the_retained_questions_too(
    tmp_path: Path,
) -> None:
    told: list[TaskProgress] = []
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        summary = await place.run(Stage.VALIDATE, round=0, policy=POLICY, tell=told.append)
        assert beneath(place, "evaluate", "validate/retained/") == {POLICY.sha256}
        assert beneath(place, "evaluate", "validate/retained-base/") == {""}
        again = await place.run(Stage.VALIDATE, round=1, policy=POLICY)
        stage = read_run(place.store, RUN).stage("validate", 0)
    assert summary.scores["retained_base"].n > 0
    assert "retained_base" not in again.scores
    assert told[-1].evaluated_queries == told[-1].queries_total
    assert stage is not None and stage.retained is not None and stage.retained_base is not None


async def test_a_round_0_that_is_the_base_is_asked_them_once(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
    assert "retained_policy" in summary.scores and "retained_base" not in summary.scores


async def test_as_published_the_policy_that_writes_is_the_one_that_learns(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "policy")) as place:
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        for kind, part in (("train", "/edit/"), ("evaluate", "/edit/"), ("evaluate", "baseline")):
            assert beneath(place, kind, part) == {POLICY.sha256}


@pytest.mark.parametrize("student", ["base", "policy"])
async def test_baselines_and_bounds_of_round_0_are_those_of_the_base_whatever_its_policy_is(
    tmp_path: Path, student: str
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, student)) as place:
        await place.run(Stage.VALIDATE, round=0, policy=POLICY)
        for kind, part in (("train", "/passage/"), ("evaluate", "/passage/")):
            assert beneath(place, kind, part) == {""}
        assert beneath(place, "evaluate", "baseline/") == {""}
        learner = "" if student == "base" else POLICY.sha256
        assert beneath(place, "train", "/edit/") == {learner}
        assert beneath(place, "evaluate", "/edit/") == {learner}


async def test_over_the_base_a_baseline_is_measured_once_for_all_rounds_and_costs_once(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        await place.run(Stage.VALIDATE, round=0)
        await place.run(Stage.VALIDATE, round=1, policy=POLICY)
        await place.run(Stage.VALIDATE, round=2, policy=OTHER)
        asked = [name for name in place.asked("evaluate") if "/baseline/" in name]
        assert len(asked) == 2
        assert {place.fakes.calls["evaluate", name] for name in asked} == {1}
        first, *later = [
            [record.baseline for record in await place.records(Stage.VALIDATE, round=round)]
            for round in range(3)
        ]
    assert all(baseline.tokens for baseline in first)
    for round in later:
        assert [baseline.answers for baseline in round] == [each.answers for each in first]
        assert [(each.tokens, each.engine_seconds) for each in round] == [(0, 0.0)] * 2


async def test_a_baseline_of_an_attempt_that_failed_counts_for_its_stage_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    def fail(kind: str, name: str, call: int) -> grpc.StatusCode | None:
        return grpc.StatusCode.FAILED_PRECONDITION if kind == "train" else None

    async with workplace(tmp_path, spec=spec_of(tmp_path, "base"), fakes=Fakes(fail=fail)) as place:
        with pytest.raises(PreconditionFailed, match="as the test wants it"):
            await place.run(Stage.VALIDATE, round=0)
        place.fakes.fail = lambda kind, name, call: None
        await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
        assert len(place.store.list("demo/baselines")) == 2
    assert all(record.baseline.tokens for record in records)


async def test_of_two_attempts_at_a_baseline_of_the_run_one_counts_for_both(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, "base")) as place:
        await place.run(Stage.VALIDATE, round=0)
        (first, *_) = [record.baseline for record in await place.records(Stage.VALIDATE, round=0)]
        ghost = first.model_copy(update={"reward": 0.123, "tokens": 999})
        attempts = [
            ShardStore(place.store, run=RUN, round=0, stage=Stage.VALIDATE, shard=shard)
            for shard in (0, 1)
        ]
        for tokens, files in zip((7, 999), attempts, strict=True):
            mine = ghost.model_copy(update={"tokens": tokens})
            assert (await files.commit_run_baseline("new", mine)).tokens == 7
        later = ShardStore(place.store, run=RUN, round=1, stage=Stage.VALIDATE, shard=0)
        assert (await later.run_baselines(["new", "none"])).keys() == {"new"}
        assert (await later.commit_run_baseline("new", ghost)).tokens == 0


@pytest.mark.parametrize("student", ["base", "policy"])
@pytest.mark.parametrize("train_contexts", [0, 2])
async def test_a_plan_counts_as_many_answers_as_are_asked_for(
    tmp_path: Path, student: str, train_contexts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 0.0)
    monkeypatch.setattr("fake_services.SHARE_DIVERGED", 0.0)
    spec = spec_of(tmp_path, student)
    data = spec.data.model_copy(update={"train_contexts": train_contexts})
    spec = spec.model_copy(update={"data": data})
    planned = workload(spec, load_data(spec))
    async with workplace(tmp_path, spec=spec) as place:
        for (round, stage), work in zip(stages(spec), planned, strict=True):
            before = set(place.asked("evaluate"))
            if stage is not Stage.PREPARE:
                await place.run(stage, round=round)
            new = [name for name in place.asked("evaluate") if name not in before]
            asked = [place.fakes.requests[f"evaluate {name}"] for name in new]
            assert sum(len(request.queries) for request in asked) == work.answers, (round, stage)
