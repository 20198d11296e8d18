"""What a few-shot run asks of its settings and of the model before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import workplace
from few_shot import FIXED, few_shot_spec
from pydantic import ValidationError

from controller_svc.cli.workload import workload
from controller_svc.worker.prepare import load_data
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.records import Stage
from seal.settings import AdaptationSpec, RunSpec
from seal.v1 import trainer_pb2


def refusal_in(error: ValidationError) -> InvalidInput:
    """The refusal that pydantic carries."""
    (found,) = error.errors()
    refused = found["ctx"]["error"]
    assert isinstance(refused, InvalidInput)
    return refused


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"edit": {"family": "implications"}}, "edit.family"),
        ({"evaluation": {"questionFormat": "plain"}}, "evaluation.questionFormat"),
        ({"evaluation": {"questionFormat": "digits", "grader": "f1"}}, "evaluation.grader"),
        ({"validation": {"openBook": True}}, "validation.openBook"),
        ({"validation": {"goldBound": True}}, "validation.goldBound"),
        ({"validation": {"emptyEdit": "passage"}}, "validation.emptyEdit"),
        ({"data": {"retained": "corpus://retained"}}, "data.retained"),
        ({"inner": {"preselect": 1}}, "inner.preselect"),
        ({"improve": {"warmStart": "gold"}}, "improve.warmStart"),
        ({"improve": {"credit": "part"}}, "improve.credit"),
    ],
)
def test_what_is_for_texts_is_refused_by_its_field(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        few_shot_spec(tmp_path, **changes)
    refused = refusal_in(caught.value)
    assert refused.field == field
    assert refused.remedy


@pytest.mark.parametrize("field", ["fixedEdit", "oracleEdit"])
def test_passages_have_no_given_edits(field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate({"validation": {field: FIXED}})
    assert refusal_in(caught.value).field == f"validation.{field}"


def test_documents_are_no_tasks() -> None:
    values = {
        "domain": "arc",
        "data": {"documents": [{"name": "a.txt", "path": "a", "sha256": "a" * 64}]},
        "edit": {"family": "train-settings"},
        "evaluation": {"questionFormat": "digits", "grader": "grid"},
    }
    with pytest.raises(ValidationError) as caught:
        AdaptationSpec.model_validate(values)
    assert refusal_in(caught.value).field == "domain"


async def test_a_tokenizer_that_joins_cells_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    spec = few_shot_spec(
        tmp_path, evaluation={"question_format": "digits", "grader": "grid", "max_tokens": 12}
    )
    with pytest.raises(InvalidInput) as caught:
        async with workplace(tmp_path, spec=spec):  # it prepares the run
            pytest.fail("to the fakes a token is a word, and several digits are one")
    assert caught.value.field == "spec.evaluation.questionFormat"
    assert "'0' is not one token" in caught.value.message


def test_an_edit_of_the_settings_that_is_none_is_refused(tmp_path: Path) -> None:
    spec = few_shot_spec(tmp_path, validation={"retained_queries": 0, "oracle_edit": "turn it"})
    with pytest.raises(InvalidInput) as caught:
        load_data(spec)
    assert caught.value.field == "spec.validation.oracleEdit"


async def test_every_edit_is_trained_with_its_own_rate_and_epochs_and_given_ones_too(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=few_shot_spec(tmp_path)) as place:
        await place.run(Stage.VALIDATE, round=0)
        records = await place.records(Stage.VALIDATE, round=0)
        trained = {
            name: request
            for name in place.asked("train")
            if isinstance(
                request := place.fakes.requests[f"train {name}"], trainer_pb2.TrainAdapterRequest
            )
        }
    rates = set()
    for record in records:
        for edit in record.edits:
            name = next(name for name in trained if f"/edit/{record.context_id}/" in name)
            choice, optimizer = edit.optimizer, trained[name].optimizer
            assert choice is not None
            assert (optimizer.learning_rate, optimizer.epochs) == (
                pytest.approx(choice.learning_rate),
                choice.epochs,
            )
            assert optimizer.schedule == "cosine"
    for name, request in trained.items():
        if "/fixed-edit/" in name:
            rates.add((request.optimizer.learning_rate, request.optimizer.epochs))
    assert len(rates) == 1


async def test_an_edit_that_is_none_counts_as_the_baseline_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 1.0)
    async with workplace(tmp_path, spec=few_shot_spec(tmp_path)) as place:
        summary = await place.run(Stage.VALIDATE, round=1)
        records = await place.records(Stage.VALIDATE, round=1)
        assert not place.asked("train")
    for record in records:
        (loop,) = record.inner_loops
        assert (loop.outcome, loop.training) == (Outcome.OK, None)
        assert loop.evaluation is not None and loop.evaluation.tokens == 0
        assert loop.evaluation.answers == record.baseline.answers
    assert summary.scores["edit"] == summary.scores["baseline"]


def test_a_plan_counts_rows_as_long_as_questions_and_every_vote(tmp_path: Path) -> None:
    spec = few_shot_spec(tmp_path)
    voted = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"votes": 3})})
    once, thrice = (workload(each, load_data(each)) for each in (spec, voted))
    assert [work.stage for work in once] == [
        Stage.PREPARE,
        Stage.VALIDATE,
        Stage.ROLLOUT,
        Stage.IMPROVE,
        Stage.VALIDATE,
    ]
    first = once[1]
    assert (first.trainings, first.contexts) == (2 * 3, 2), "an edit and both given ones"
    row = first.train_tokens / first.steps / spec.inner.optimizer.batch_size
    assert 20 < row < 60, "a row is a task: two or three demonstrations of strips"
    assert thrice[1].question_tokens == 3 * first.question_tokens
    assert thrice[1].train_tokens == first.train_tokens
