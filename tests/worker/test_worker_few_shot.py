"""What a few-shot run asks of its settings and of the model before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from controller_harness import workplace
from few_shot import FIXED, few_shot_spec
from pydantic import ValidationError

from controller_svc.cli.workload import workload
from controller_svc.worker.domain_checks import check_answers_fit
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


async def test_answers_longer_than_an_answer_may_be_are_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    """To the fakes every cell of a strip of three is a token."""

    def spec_of(max_tokens: int) -> RunSpec:
        evaluation = {"question_format": "letters", "grader": "grid", "max_tokens": max_tokens}
        return few_shot_spec(tmp_path, evaluation=evaluation)

    async with workplace(tmp_path / "fits", spec=spec_of(3)):
        pass
    with pytest.raises(InvalidInput) as caught:
        async with workplace(tmp_path / "long", spec=spec_of(2)):  # it prepares the run
            pytest.fail("no answer could be right")
    assert caught.value.field == "spec.evaluation.maxTokens"
    assert caught.value.message == (
        "the answer to question 1 of task 'swap-4' has 3 tokens, an answer may have 2, and 3 more "
        "are longer too: it could never be right"
    )
    assert caught.value.remedy == "give 3 or more, or leave such tasks out"


class _LineBreaksCount:
    """A tokenizer to which a line break is a token, and what stands around a row are two."""

    async def count_tokens(self, rows: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        texts = [f"{row.prompt} {row.completion}" for row in rows]
        return [2 + len(text.split()) + text.count("\n") for text in texts]


async def test_answers_in_the_ways_that_vote_have_to_fit_too(tmp_path: Path) -> None:
    spec = few_shot_spec(
        tmp_path, evaluation={"question_format": "letters", "grader": "grid", "max_tokens": 3}
    )
    contexts, trainer = load_data(spec)["train"], _LineBreaksCount()
    await check_answers_fit(spec, contexts, trainer)
    voted = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"votes": 8})})
    with pytest.raises(InvalidInput, match=r"has 5 tokens, an answer may have 3"):
        await check_answers_fit(voted, contexts, trainer)  # a strip that is turned has lines


@pytest.mark.parametrize(
    ("domain", "grader", "votes", "remedy"),
    [
        ("arc", "logprob", 2, "set it to 1, or the grader to grid"),
        ("knowledge", "f1", 2, "set it to 1"),
        ("knowledge", "judge", 8, "set it to 1"),
    ],
)
def test_votes_that_would_decide_nothing_are_refused(
    domain: str, grader: str, votes: int, remedy: str
) -> None:
    formats = {"arc": ("train-settings", "digits"), "knowledge": ("self-qa", "plain")}
    values = {
        "domain": domain,
        "edit": {"family": formats[domain][0]},
        "data": {"retained": ""},
        "evaluation": {"questionFormat": formats[domain][1], "grader": grader, "votes": votes},
    }
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(values)
    refused = refusal_in(caught.value)
    assert (refused.field, refused.remedy) == ("evaluation.votes", remedy)


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
