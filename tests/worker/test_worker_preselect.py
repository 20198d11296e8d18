"""Inner loops of a few candidates only, chosen by what is known without training."""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import IMPATIENT, RUN, Workplace, small_spec, workplace
from fake_services import chance
from resume_harness import Crash, Effects, KillPoint, Scene, crash

from controller_svc.core import Phase
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import WorkerSettings
from seal.domains import get_domain
from seal.domains.base import Query
from seal.domains.knowledge import KnowledgeDomain
from seal.records import ContextRecord, Stage
from seal.restem.preselect import preselect
from seal.restem.racing import advance
from seal.restem.rollout import runner_of
from seal.runs.store import read_contexts, read_selection
from seal.settings import EditSettings, InnerLoopSettings, RunSpec, ValidationSettings

FEW = WorkerSettings.model_validate(
    IMPATIENT.model_dump() | {"concurrency": 2, "contexts_per_request": 2}
)
INNER = "r1-rollout/shard-0000/inner"


@pytest.fixture(autouse=True)
def pairs_that_serve_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes' pairs have nothing to do with the questions, and their answers are all alike."""

    def affinity(
        self: KnowledgeDomain, question: str, answer: str, query: Query, *, title: str
    ) -> float:
        return chance("affinity", question, query.question)

    monkeypatch.setattr(KnowledgeDomain, "affinity", affinity)


def spec_of(
    directory: Path, *, passages: tuple[int, int, int] = (3, 2, 2), **inner: object
) -> RunSpec:
    """2 of 5 candidates; the gold answers share a word with the fakes'."""
    spec = small_spec(
        directory,
        passages=passages,
        rounds=1,
        edit=EditSettings(family="self-qa", k=5),
        inner=InnerLoopSettings.model_validate({"preselect": 2, "repeats": 2} | inner),
        validation=ValidationSettings(edits_per_context=3, retained_queries=1),
    )
    train = Path(spec.data.train)
    train.write_text(train.read_text().replace(" lamp ", " lamps "))
    return spec


async def chosen_of(place: Workplace, record: ContextRecord, count: int = 2) -> tuple[int, ...]:
    contexts = {
        context.context_id: context for context in await read_contexts(place.store, RUN, "train")
    }
    return preselect(
        record.edits,
        context=contexts[record.context_id],
        domain=get_domain(place.spec.domain),
        count=count,
    )


def ran(record: ContextRecord, repeat: int) -> tuple[int, ...]:
    return tuple(
        loop.candidate
        for loop in record.inner_loops
        if (loop.kind, loop.repeat) == ("edit", repeat)
    )


async def test_only_the_preselected_get_inner_loops_and_the_others_are_dropped_as_such(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path)) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        improved = await place.run(Stage.IMPROVE, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
        chosen = [await chosen_of(place, record) for record in records]
        selection = await read_selection(place.store, RUN, 1)
    assert selection is not None
    assert [[ran(record, repeat) for repeat in (0, 1)] for record in records] == [
        [each, each] for each in chosen
    ]
    assert chosen != [(0, 1)] * 3, "the first would have been taken as well"
    assert sum(summary.outcomes.values()) == summary.inner_loops_run == 3 * 2 * 2
    assert summary.scores["edit"].n == 3
    assert selection.dropped["preselected"] == 3 * 3
    assert sum(selection.dropped.values()) + improved.kept == 3 * 5


async def test_validation_trains_on_every_edit(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path)) as place:
        await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
    assert [ran(record, 0) for record in records] == [(0, 1, 2)] * 2


async def test_a_race_begins_with_the_preselected(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, preselect=3, racing=(2,))
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.IMPROVE, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
        chosen = [await chosen_of(place, record, 3) for record in records]
        selection = await read_selection(place.store, RUN, 1)
    for record, first in zip(records, chosen, strict=True):
        assert ran(record, 0) == first
        loops = [loop for loop in record.inner_loops if loop.repeat == 0]
        runners = [runner_of(record.edits[candidate], loops) for candidate in first]
        assert ran(record, 1) == advance(runners, 2)
    assert selection is not None and selection.dropped["preselected"] == 3 * 2


async def test_progress_of_a_resumed_preselection_ends_complete(tmp_path: Path) -> None:
    told: list[TaskProgress] = []
    async with workplace(tmp_path, spec=spec_of(tmp_path)) as place:
        summary, _ = await place.rollout_again(told.append)
    assert summary.inner_loops_run + summary.inner_loops_resumed == 12
    assert (told[-1].inner_loops_done, told[-1].inner_loops_total) == (12, 12)
    assert told[-1].evaluated_queries == told[-1].queries_total == 3 * 3 + 12 * 3


async def test_a_crash_at_any_inner_loop_changes_neither_the_preselection_nor_the_selection(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    spec = spec_of(tmp_path / "data", passages=(2, 1, 0), repeats=1)

    def scene(name: str) -> Scene:
        (tmp_path / name).mkdir()
        return Scene(spec=spec, directory=tmp_path / name, settings=FEW)

    calm, effects = scene("calm"), Effects()
    await calm.run(resume=False, effects=effects)
    commits = [name for effect, name in effects.seen if effect == "write" and INNER in name]
    assert len(commits) == 2 * 2
    for nth in range(1, len(commits) + 1):
        crashed = scene(str(nth))
        point = KillPoint(
            nth=nth, when="before" if nth % 2 else "after", effect="write", match=INNER
        )
        with pytest.raises(Crash):
            await crashed.run(resume=False, effects=Effects(point=point, die=crash))
        status = await crashed.run(resume=True, effects=Effects())
        assert status.phase is Phase.COMPLETE
        assert crashed.final() == calm.final(), f"crashed {point.when} inner loop {nth}"
