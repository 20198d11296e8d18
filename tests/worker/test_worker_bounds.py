"""The bounds of round 0: the passage at its best and at equal steps, gold pairs, open book."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from controller_harness import Workplace, small_spec, workplace
from fake_services import Fakes

from controller_svc.cli.workload import workload
from controller_svc.worker.bounds import bounds_of, steps_of, with_steps
from controller_svc.worker.demands import check_settings
from controller_svc.worker.prepare import check_sizes, load_data
from controller_svc.worker.progress import TaskProgress
from seal.config import load_run
from seal.domains.base import Example
from seal.errors import InvalidInput, PreconditionFailed
from seal.limits import MAX_STEPS
from seal.outcomes import Outcome
from seal.records import ContextRecord, ModelDescription, Stage
from seal.settings import (
    ALL_PROJECTIONS,
    MAX_EPOCHS,
    EditSettings,
    InnerLoopSettings,
    OptimizerSettings,
    RunSpec,
    ValidationSettings,
)
from seal.v1 import evaluator_pb2, trainer_pb2

PASSAGE = OptimizerSettings(learning_rate=0.02, epochs=7, batch_size=2)
ALL_BOUNDS = {"gold_bound": True, "equal_steps": True, "open_book": True}


def spec_of(directory: Path, *, repeats: int = 1, **validation: object) -> RunSpec:
    """Two optimiser epochs per edit, one edit per validation passage."""
    inner = InnerLoopSettings(repeats=repeats, optimizer=OptimizerSettings(epochs=2))
    values: dict[str, object] = {"edits_per_context": 1, "retained_queries": 1}
    return small_spec(
        directory, inner=inner, validation=ValidationSettings.model_validate(values | validation)
    )


def trained(place: Workplace, part: str) -> list[trainer_pb2.TrainAdapterRequest]:
    """Trainings whose id has that part."""
    found = [place.fakes.requests[f"train {name}"] for name in place.asked("train") if part in name]
    return [request for request in found if isinstance(request, trainer_pb2.TrainAdapterRequest)]


def kinds(record: ContextRecord) -> list[str]:
    return [loop.kind for loop in record.inner_loops]


async def test_the_passage_alone_is_trained_with_an_optimiser_of_its_own_where_it_has_one(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, passage=PASSAGE)) as place:
        await place.run(Stage.VALIDATE, round=0)
        of_passage, of_edits = trained(place, "/passage/"), trained(place, "/edit/")
    assert of_passage and of_edits
    for request in of_passage:
        assert (request.optimizer.epochs, request.optimizer.batch_size) == (7, 2)
        assert request.optimizer.learning_rate == pytest.approx(0.02)
    for request in of_edits:
        assert (request.optimizer.epochs, request.optimizer.batch_size) == (2, 1)


async def test_at_equal_steps_the_passage_gets_the_rate_and_the_steps_of_its_first_edit(
    tmp_path: Path,
) -> None:
    spec = spec_of(tmp_path, equal_steps=True, passage=PASSAGE)
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
        for record in records:
            rows = len(record.edits[0].examples)
            if not rows:
                continue
            key = f"/passage-equal-steps/{record.context_id}"
            (request,) = trained(place, key)
            (own,) = trained(place, f"/edit/{record.context_id}")
            assert len(request.examples) == 1
            assert request.optimizer.epochs == 2 * (rows + 1) == 2 * len(own.examples)
            assert request.optimizer.learning_rate == own.optimizer.learning_rate
            assert (request.init_seed, request.order_seed) == (own.init_seed, own.order_seed)


async def test_an_edit_that_holds_nothing_has_no_steps_that_the_passage_could_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 1.0)
    told: list[TaskProgress] = []
    async with workplace(tmp_path, spec=spec_of(tmp_path, equal_steps=True)) as place:
        summary = await place.run(Stage.VALIDATE, round=0, tell=told.append)
        records = await place.records(Stage.VALIDATE, round=0)
        # An attempt that was killed between the edits of one context and those of the next
        files = place.files(Stage.VALIDATE, round=0)
        first, *_ = sorted(await files.edits())
        for name in (f"edits/{first}.json", "records.jsonl", "summary.json"):
            place.store.remove(f"{files.path}/{name}")
        again: list[TaskProgress] = []
        await place.run(Stage.VALIDATE, round=0, tell=again.append)
    assert (again[-1].inner_loops_total, again[-1].queries_total) == (4, told[-1].queries_total)
    assert [kinds(record) for record in records] == [["edit", "passage"]] * 2
    assert summary.outcomes == {"invalid": 2, "ok": 2}
    assert "passage-equal-steps" not in summary.scores
    last = told[-1]
    assert (last.inner_loops_done, last.inner_loops_total) == (4, 4)
    assert (last.trainings_done, last.evaluated_queries) == (
        last.trainings_total,
        last.queries_total,
    )


async def test_an_edit_that_holds_nothing_may_count_as_the_passage_alone_but_teaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 1.0)
    spec = spec_of(
        tmp_path, equal_steps=True, empty_edit="passage", passage=OptimizerSettings(epochs=5)
    )
    async with workplace(tmp_path, spec=spec) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
        (own,) = trained(place, f"/edit/{records[0].context_id}")
        (alone,) = trained(place, f"/passage/{records[0].context_id}")
        rollout = await place.run(Stage.ROLLOUT, round=1)
    assert own.examples == alone.examples
    assert own.optimizer == alone.optimizer and own.optimizer.epochs == 5
    assert [kinds(record) for record in records] == [["edit", "passage", "passage-equal-steps"]] * 2
    assert summary.outcomes == {"ok": 6}
    assert set(rollout.outcomes) == {"invalid"}


async def test_the_open_book_asks_the_base_with_the_passage_in_view_and_trains_nothing(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=spec_of(tmp_path, open_book=True, repeats=2)) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
        names = [name for name in place.asked("evaluate") if "/open-book/" in name]
        requests = [place.fakes.requests[f"evaluate {name}"] for name in names]
        assert not trained(place, "/open-book/")
    assert len(requests) == len(records) == 2
    for request in requests:
        assert isinstance(request, evaluator_pb2.EvaluateRequest)
        assert not request.HasField("adapter") and not request.policy.HasField("adapter")
        assert all("lies beyond the hills" in query.context for query in request.queries)
    (loop,) = [loop for loop in records[0].inner_loops if loop.kind == "open-book"]
    assert (loop.training, loop.retained, loop.outcome) == (None, None, Outcome.OK)
    assert summary.scores["open-book"].n == 2


async def test_open_book_answers_do_not_hide_how_many_inner_loops_have_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 1.0)
    counts = []
    for name, open_book in (("with", True), ("without", False)):
        directory = tmp_path / name
        directory.mkdir()
        async with workplace(directory, spec=spec_of(directory, open_book=open_book)) as place:
            summary = await place.run(Stage.VALIDATE, round=0)
        counts.append((summary.outcomes, summary.inner_loops_run))
    assert counts[0] == counts[1] == ({"invalid": 2, "ok": 2}, 4)


async def test_all_bounds_stand_in_the_record_and_the_scores_in_round_0_and_in_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 0.0)
    monkeypatch.setattr("fake_services.SHARE_DIVERGED", 0.0)
    spec = spec_of(tmp_path, **ALL_BOUNDS)
    told: list[TaskProgress] = []
    async with workplace(tmp_path, spec=spec) as place:
        zero = await place.run(Stage.VALIDATE, round=0, tell=told.append)
        one = await place.run(Stage.VALIDATE, round=1)
        record, *_ = await place.records(Stage.VALIDATE, round=0)
        notes = {request.rows_note for request in trained(place, "/edit/")}
        notes_of_gold = {request.rows_note for request in trained(place, "/gold/")}
        asked = [place.fakes.requests[f"evaluate {name}"] for name in place.asked("evaluate")]
        answers = sum(len(request.queries) for request in asked if "/r0/" in request.request_id)
    assert kinds(record) == ["edit", *bounds_of(spec)]
    assert notes == {""} and "supervised" in notes_of_gold.pop()
    assert zero.scores.keys() - one.scores.keys() == set(bounds_of(spec))
    planned = next(work for work in workload(spec, load_data(spec)) if work.stage == "validate")
    assert (planned.answers, planned.trainings) == (answers, 8)
    last = told[-1]
    assert last.evaluated_queries == last.queries_total == answers
    assert last.trainings_done == last.trainings_total == 8


async def test_a_restarted_shard_gives_the_same_bounds_and_asks_for_no_finished_one_again(
    tmp_path: Path,
) -> None:
    def fail(kind: str, name: str, call: int) -> grpc.StatusCode | None:
        bad = kind == "train" and "/passage-equal-steps/" in name
        return grpc.StatusCode.FAILED_PRECONDITION if bad else None

    spec = spec_of(tmp_path, **ALL_BOUNDS)
    (tmp_path / "calm").mkdir()
    async with workplace(tmp_path / "calm", spec=spec) as place:
        await place.run(Stage.VALIDATE, round=0)
        expected = await place.records(Stage.VALIDATE, round=0)
    async with workplace(tmp_path, spec=spec, fakes=Fakes(fail=fail)) as place:
        with pytest.raises(PreconditionFailed, match="as the test wants it"):
            await place.run(Stage.VALIDATE, round=0)
        done = await place.files(Stage.VALIDATE, round=0).inner_loops()
        place.fakes.fail = lambda kind, name, call: None
        told: list[TaskProgress] = []
        await place.run(Stage.VALIDATE, round=0, tell=told.append)
        again = await place.records(Stage.VALIDATE, round=0)
        names = [name for name in place.asked("evaluate") if "/open-book/" in name]
        assert all(
            place.fakes.calls["evaluate", name] == 1
            for name in names
            if any(f".{name.split('/')[3]}-" in key for key in done)
        )
    assert again == expected
    assert told[-1].inner_loops_done == told[-1].inner_loops_total


async def test_what_a_batch_of_rows_leaves_over_gives_a_few_steps_more_and_never_fewer() -> None:
    optimizer = OptimizerSettings(epochs=3, batch_size=2)
    rows = (Example(prompt="", completion="a"),) * 3
    for edit_rows in range(1, 40):
        steps = steps_of(optimizer, edit_rows)
        given, own = with_steps(rows, optimizer, steps=steps)
        assert steps <= steps_of(own, len(given)) < steps + 2


@pytest.mark.parametrize("steps", [1, MAX_EPOCHS, MAX_EPOCHS + 1, 1290, MAX_STEPS])
async def test_more_steps_than_an_optimiser_takes_epochs_are_given_by_more_rows(
    steps: int,
) -> None:
    rows, optimizer = with_steps(
        (Example(prompt="", completion="a"),), OptimizerSettings(), steps=steps
    )
    OptimizerSettings.model_validate(optimizer.model_dump(by_alias=True))
    assert steps <= steps_of(optimizer, len(rows)) <= min(MAX_STEPS, steps + len(rows))


def test_equal_steps_are_refused_where_no_edit_is_written() -> None:
    with pytest.raises(InvalidInput, match="writes no edit") as caught:
        load_run(None, {"spec.edit.family": "none", "spec.validation.equalSteps": True})
    assert caught.value.field == "spec.validation.equalSteps"
    assert "edit.family" in caught.value.remedy


def test_the_passages_own_optimiser_is_refused_by_field_where_the_trainer_cannot_take_it(
    tmp_path: Path,
) -> None:
    long = spec_of(tmp_path, passage=OptimizerSettings(pad_to_tokens=4096))
    model = ModelDescription(
        base_model="m",
        base_sha256="",
        max_positions=2048,
        max_row_tokens=2048,
        max_rank=128,
        target_modules=ALL_PROJECTIONS,
        dtype="float32",
    )
    with pytest.raises(InvalidInput) as caught:
        check_settings(long, model)
    assert caught.value.field == "spec.validation.passage.padToTokens"
    many = spec_of(tmp_path, passage=OptimizerSettings(epochs=1000))
    inner = many.inner.model_copy(
        update={"examples": many.inner.examples.model_copy(update={"passage_repeats": 1000})}
    )
    inner = inner.model_copy(update={"optimizer": OptimizerSettings(epochs=1)})
    with pytest.raises(InvalidInput) as caught:
        check_sizes(many.model_copy(update={"inner": inner}), train_contexts=3)
    assert caught.value.field == "spec.validation.passage.epochs"


def test_the_fields_of_a_section_that_may_be_left_out_are_merged_and_corrected_as_any() -> None:
    spec = load_run(
        None,
        {
            "spec.profile": "published",  # it leaves the section out
            "spec.validation.passage.epochs": 20,
            "spec.validation.passage.learningRate": 0.01,
        },
    ).spec
    assert spec.validation.passage == OptimizerSettings(learning_rate=0.01, epochs=20)
    with pytest.raises(InvalidInput, match="epoch") as caught:
        load_run(None, {"spec.validation.passage.epoch": 20})
    assert caught.value.remedy == "did you mean spec.validation.passage.epochs?"


def test_a_family_without_edits_still_has_its_other_bounds(tmp_path: Path) -> None:
    spec = small_spec(
        tmp_path,
        edit=EditSettings(family="none"),
        validation=ValidationSettings(open_book=True, gold_bound=True),
    )
    assert bounds_of(spec) == ("passage", "gold", "open-book")
