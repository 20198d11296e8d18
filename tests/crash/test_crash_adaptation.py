"""Killed at side effects of every stage, an adaptation ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from adaptation_harness import RUN, Adapting, adaptation_spec
from direct_clients import Bureau, DirectClients, NumberedStore
from resume_harness import Crash, Effects, crash, kill_points

from controller_svc.core import shards, stages
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.questions import FOLDER
from seal.adaptations.lesson import Lesson
from seal.artifacts import ArtifactStore
from seal.records import AdaptationResult, QuestionsRecord, ShardSummary, Stage
from seal.runs.cleanup import sweep_run
from seal.settings import AdaptationSpec, EditSettings

TURNS = 4
"""Workers that a task may use up."""
PARTS = 4
"""Tests that share the moments of a kill: each has the time limit of one test."""


@pytest.fixture(autouse=True)
def no_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def spec_in(directory: Path, *, given: bool) -> AdaptationSpec:
    """A small adaptation whose documents lie in the store of that directory."""
    directory.mkdir(parents=True, exist_ok=True)
    edit = EditSettings(k=2, family="self-qa-by-sentence", max_tokens=32)
    store = ArtifactStore(str(directory / "artifacts"))
    return adaptation_spec(directory, store, given=given, edit=edit)


async def end_of(
    directory: Path, effects: Effects, *, given: bool
) -> tuple[list[ShardSummary], Bureau]:
    """All tasks in order, each run again if it dies."""
    spec = spec_in(directory, given=given)
    root = str(directory / "artifacts")
    bureau = Bureau(store=NumberedStore.at(root, Effects()))
    summaries = []
    for _, stage in stages(spec):
        summaries += [
            await _to_the_end(spec, root, bureau, effects, stage, shard)
            for shard in range(shards(spec, stage))
        ]
    return summaries, bureau


async def _to_the_end(
    spec: AdaptationSpec, root: str, bureau: Bureau, effects: Effects, stage: Stage, shard: int
) -> ShardSummary:
    for _ in range(TURNS):
        clients: ServiceClients = DirectClients(bureau, effects)  # type: ignore[assignment]
        place = Adapting(spec, NumberedStore.at(root, effects), clients)
        try:
            return await place.run(stage, shard=shard)
        except Crash:
            effects.dead = False
    raise AssertionError(f"{stage} does not end")


async def outcome(directory: Path, summaries: list[ShardSummary]) -> object:
    """What must be the same: questions, lesson, result, adapters, and how much was counted."""
    store = ArtifactStore(str(directory / "artifacts"))
    place = Adapting(spec_in(directory, given=True), store, None)  # type: ignore[arg-type]
    told = [
        (one.stage, one.outcomes, one.tokens, one.engine_seconds, one.counts, one.result)
        for one in summaries
    ]
    result = summaries[-1].result
    kept = [] if result is None else [result.adapter, result.passages_adapter]
    policies = [adapter for adapter in kept if adapter is not None]
    await sweep_run(store, RUN, policies=policies, keep_inner_adapters=False)
    adapters = sorted({path.rpartition("/")[0] for path in store.list(f"{RUN}/adapters")})
    return (
        told,
        adapters,
        await place.files(Stage.QUESTION).committed(FOLDER, QuestionsRecord),
        await place.files(Stage.ADAPT).committed("lesson", Lesson),
        await place.files(Stage.ADAPT).committed("result", AdaptationResult),
    )


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("given", [True, False], ids=["given", "self-made"])
async def test_an_adaptation_killed_at_any_side_effect_ends_as_if_nothing_had_happened(
    tmp_path: Path, given: bool, part: int
) -> None:
    calm = Effects()
    summaries, bureau = await end_of(tmp_path / "calm", calm, given=given)
    undisturbed = await outcome(tmp_path / "calm", summaries)
    assert set(bureau.trained.values()) == {1}
    assert {f"{RUN}/adapt/adapter", f"{RUN}/adapt/passages"} <= set(bureau.trained)
    chosen = list(kill_points(calm))[given::3][part::PARTS]
    assert len(chosen) > 10
    for number, point in enumerate(chosen):
        directory = tmp_path / str(number)
        effects = Effects(point=point, die=crash)
        summaries, bureau = await end_of(directory, effects, given=given)
        assert await outcome(directory, summaries) == undisturbed, point
        assert set(bureau.trained.values()) == {1}, point
        assert effects.hits >= point.nth, point
