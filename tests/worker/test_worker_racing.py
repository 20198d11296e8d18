"""A race on fake services.

Who is trained again, that nothing waits for other contexts, and that a crash changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from controller_harness import IMPATIENT, small_spec, workplace
from fake_services import Fakes
from resume_harness import Crash, Effects, KillPoint, Scene, crash

from controller_svc.core import Phase
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import WorkerSettings
from seal.errors import SealError
from seal.outcomes import Outcome
from seal.records import ContextRecord, Stage
from seal.restem.racing import advance
from seal.restem.reward import mean
from seal.restem.rollout import runner_of
from seal.settings import (
    EditSettings,
    InnerLoopSettings,
    OptimizerSettings,
    RunSpec,
    ValidationSettings,
)
from seal.v1 import trainer_pb2

EPOCH = OptimizerSettings(epochs=1)
RACE = InnerLoopSettings(repeats=3, racing=(3, 2), optimizer=EPOCH)
"""6 -> 3 -> 2."""


def race_spec(
    directory: Path, *, passages: tuple[int, int, int] = (3, 2, 0), **changes: object
) -> RunSpec:
    values: dict[str, object] = {"edit": EditSettings(k=6), "inner": RACE}
    return small_spec(directory, passages=passages, **values | changes)


def ran(record: ContextRecord) -> list[list[int]]:
    """Candidates by repeat."""
    return [
        [
            loop.candidate
            for loop in record.inner_loops
            if (loop.kind, loop.repeat) == ("edit", repeat)
        ]
        for repeat in range(3)
    ]


async def test_each_repeat_goes_to_the_best_of_the_one_before(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=race_spec(tmp_path, passages=(8, 2, 0))) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    assert sum(summary.outcomes.values()) == 8 * (6 + 3 + 2)
    assert {str(Outcome.OK), str(Outcome.DIVERGED), str(Outcome.INVALID)} <= summary.outcomes.keys()
    for record in records:
        assert [len(rung) for rung in ran(record)] == [6, 3, 2]
        for repeat, survivors in ((0, 3), (1, 2)):
            loops = [loop for loop in record.inner_loops if loop.repeat <= repeat]
            runners = [
                runner_of(record.edits[candidate], loops, baseline=record.baseline)
                for candidate in ran(record)[repeat]
            ]
            assert tuple(ran(record)[repeat + 1]) == advance(runners, survivors)


async def test_the_log_probability_may_decide_the_first_rung(tmp_path: Path) -> None:
    spec = race_spec(
        tmp_path, passages=(6, 2, 0), inner=RACE.model_copy(update={"racing_score": "logprob"})
    )
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    differs = 0
    for record in records:
        first = [loop for loop in record.inner_loops if loop.repeat == 0]
        logprobs = {
            loop.candidate: mean(a.logprob for a in loop.evaluation.answers) or 0.0
            for loop in first
            if loop.evaluation
        }
        assert ran(record)[1] == sorted(
            sorted(logprobs, key=lambda candidate: -logprobs[candidate])[:3]
        )
        differs += tuple(ran(record)[1]) != advance(
            [runner_of(edit, first) for edit in record.edits], 3
        )
    assert differs, "the reward would have chosen others"


async def test_candidates_of_a_context_share_their_seeds_in_every_rung(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=race_spec(tmp_path)) as place:
        await place.run(Stage.ROLLOUT, round=1)
        seeds: dict[tuple[str, str], set[tuple[int, int]]] = {}
        for name, request in place.fakes.requests.items():
            if isinstance(request, trainer_pb2.TrainAdapterRequest):
                *_, context_id, _, repeat = name.split("/")
                seeds.setdefault((context_id, repeat), set()).add(
                    (request.init_seed, request.order_seed)
                )
    assert len(seeds) == 3 * 3
    assert all(len(pairs) == 1 for pairs in seeds.values())
    assert len(set.union(*seeds.values())) == 9


class Holding(Fakes):
    """Holds one context's first repeat until another context is in its last."""

    released: asyncio.Event

    async def enter(
        self,
        kind: str,
        request_id: str,
        request: object,
        context: grpc.aio.ServicerContext[object, object],
    ) -> None:
        if kind == "train" and "/edit/tower-0" in request_id and request_id.endswith("/0"):
            await asyncio.wait_for(self.released.wait(), 120)
        if kind == "train" and "/edit/tower-1" in request_id and request_id.endswith("/2"):
            self.released.set()
        await super().enter(kind, request_id, request, context)


async def test_a_context_runs_its_race_while_another_is_still_in_its_first_rung(
    tmp_path: Path,
) -> None:
    fakes = Holding()
    fakes.released = asyncio.Event()
    async with workplace(tmp_path, spec=race_spec(tmp_path), fakes=fakes) as place:
        assert place.settings.concurrency >= 12, "a held rung must not take all places"
        summary = await place.run(Stage.ROLLOUT, round=1)
    assert sum(summary.outcomes.values()) == 3 * 11


@pytest.mark.parametrize(
    "inner", [RACE, InnerLoopSettings(repeats=3, optimizer=EPOCH)], ids=["race", "all repeats"]
)
async def test_the_baseline_of_a_context_is_asked_once_however_many_adapters_it_has(
    tmp_path: Path, inner: InnerLoopSettings
) -> None:
    async with workplace(tmp_path, spec=race_spec(tmp_path, inner=inner)) as place:
        place.fakes.fail = lambda kind, name, call: (
            grpc.StatusCode.INTERNAL if kind == "train" and name.endswith("/2") else None
        )
        with pytest.raises(SealError):
            await place.run(Stage.ROLLOUT, round=1)
        assert len(await place.files(Stage.ROLLOUT, round=1).baselines()) == 3
        place.fakes.fail = lambda kind, name, call: None
        await place.run(Stage.ROLLOUT, round=1)
        asked = Counter(
            {
                name: calls
                for (kind, name), calls in place.fakes.calls.items()
                if "/baseline/" in name
            }
        )
    assert len(asked) == 3 and set(asked.values()) == {1}


async def test_bounds_and_validation_are_no_race(tmp_path: Path) -> None:
    validation = ValidationSettings(edits_per_context=4, gold_bound=True, retained_queries=0)
    async with workplace(tmp_path, spec=race_spec(tmp_path, validation=validation)) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
    assert sum(summary.outcomes.values()) == 2 * (4 + 2) * 3


async def test_a_family_without_edits_has_nothing_to_race(tmp_path: Path) -> None:
    spec = race_spec(tmp_path, edit=EditSettings(family="none", k=6))
    async with workplace(tmp_path, spec=spec) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
    assert summary.outcomes == {} and summary.scores.keys() == {"baseline"}


async def test_a_raced_rollouts_mean_score_is_the_first_repeats_and_its_best_is_a_finalist(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=race_spec(tmp_path)) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    means, best = [], []
    for record in records:
        compared = {one.query_id for one in record.baseline.answers if one.score is not None}
        rewards: dict[tuple[int, int], float] = {}
        for loop in record.inner_loops:
            answers = loop.evaluation.answers if loop.evaluation else ()
            scores = [one.score for one in answers if one.query_id in compared]
            graded = [score for score in scores if score is not None]
            if graded and len(graded) == len(scores):
                rewards[loop.candidate, loop.repeat] = sum(graded) / len(graded)
        means.append(mean(reward for (_, repeat), reward in rewards.items() if repeat == 0) or 0.0)
        scored = {
            c: [rewards[c, repeat] for repeat in range(3) if (c, repeat) in rewards]
            for c in ran(record)[2]
        }
        most = max(len(each) for each in scored.values())
        best.append(max(sum(each) / len(each) for each in scored.values() if len(each) == most))
    assert summary.scores["edit"].total == pytest.approx(sum(means))
    assert summary.scores["best"].total == pytest.approx(sum(best))


async def test_progress_of_a_resumed_race_ends_complete(tmp_path: Path) -> None:
    told: list[TaskProgress] = []
    async with workplace(tmp_path, spec=race_spec(tmp_path)) as place:
        summary, done = await place.rollout_again(told.append)
    assert 0 < done < 33
    assert (summary.inner_loops_run, summary.inner_loops_resumed) == (33 - done, done)
    assert (told[-1].inner_loops_done, told[-1].inner_loops_total, told[-1].training_fraction) == (
        33,
        33,
        1.0,
    )
    assert told[-1].evaluated_queries == told[-1].queries_total == 3 * 3 + 33 * 3


FEW = WorkerSettings.model_validate(
    IMPATIENT.model_dump() | {"concurrency": 2, "contexts_per_request": 2}
)
INNER = "r1-rollout/shard-0000/inner"


def scene(directory: Path, spec: RunSpec) -> Scene:
    directory.mkdir()
    return Scene(spec=spec, directory=directory, settings=FEW)


async def test_a_crash_at_any_inner_loop_of_a_race_changes_no_selection_and_repeats_no_loop(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    spec = race_spec(tmp_path / "data", passages=(2, 1, 0), rounds=1, edit=EditSettings(k=4))
    calm, effects = scene(tmp_path / "calm", spec), Effects()
    await calm.run(resume=False, effects=effects)
    commits = [name for effect, name in effects.seen if effect == "write" and INNER in name]
    assert len(commits) == 2 * (4 + 3 + 2)
    for nth in range(1, len(commits) + 1):
        crashed = scene(tmp_path / str(nth), spec)
        point = KillPoint(
            nth=nth, when="before" if nth % 2 else "after", effect="write", match=INNER
        )
        with pytest.raises(Crash):
            await crashed.run(resume=False, effects=Effects(point=point, die=crash))
        finished, executed = crashed.finished_loops(), crashed.executed()
        status = await crashed.run(resume=True, effects=Effects())
        assert status.phase is Phase.COMPLETE
        assert crashed.final() == calm.final(), f"crashed {point.when} inner loop {nth}"
        assert {name for _, name in crashed.executed()[len(executed) :]}.isdisjoint(finished)


def test_a_killed_race_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = race_spec(tmp_path / "data", rounds=1)
    calm, killed = scene(tmp_path / "calm", spec), scene(tmp_path / "killed", spec)
    assert calm.run_child(resume=False) == 0
    assert (
        killed.run_child(
            resume=False, point=KillPoint(nth=22, when="after", effect="write", match=INNER)
        )
        == -9
    )
    repeats = Counter(
        record.repeat for record in killed.finished_loops().values() if record.kind == "edit"
    )
    assert repeats[0] > 0 and repeats[1] > 0, "killed in the middle of a race"
    assert killed.run_child(resume=True) == 0
    assert killed.final() == calm.final()
