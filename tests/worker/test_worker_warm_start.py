"""The warm start: a supervised M-step on gold pairs of training contexts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from controller_harness import IMPATIENT, POLICY, RUN, Workplace, small_spec, workplace
from fake_services import MODEL, Fakes

from controller_svc.cli.workload import workload
from controller_svc.core import stages
from controller_svc.runs import open_run
from controller_svc.worker.prepare import load_data
from seal.config import load_run
from seal.domains import get_domain
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.records import WARM_START, AdapterReference, Stage, SupervisedRecord
from seal.report.numbers.source import read_run
from seal.resources import RestEMRun
from seal.runs.improve import improve_request
from seal.runs.warm_start import gold_rows, read_supervised
from seal.settings import EditSettings, ImproveSettings, RunSpec
from seal.v1 import trainer_pb2
from trainer_svc.examples import with_examples

HELD_OUT = "Nobody may learn this"


def warm_spec(directory: Path, **changes: object) -> RunSpec:
    """Gold pairs of `self-qa`: one row per training passage."""
    values: dict[str, object] = {
        "edit": EditSettings(k=2, family="self-qa"),
        "improve": ImproveSettings(warm_start="gold"),
    }
    return small_spec(directory, **(values | changes))


async def learnt(place: Workplace) -> SupervisedRecord:
    record = await read_supervised(place.store, RUN)
    assert record is not None
    return record


def m_step(place: Workplace, round: int = 0) -> trainer_pb2.TrainAdapterRequest:
    request = place.fakes.requests[f"train {RUN}/r{round}/improve/policy"]
    assert isinstance(request, trainer_pb2.TrainAdapterRequest)
    return request


def write_rows(path: str, rows: list[dict[str, object]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def passage(title: str, *, words: int = 20, question: str = "What?") -> dict[str, object]:
    text = f"The {title} is old. " + f"It holds {title} stone. " * (words // 4)
    return {
        "title": title,
        "context": text,
        "questions": [{"question": question, "answer": f"{title} stone"}],
    }


@pytest.mark.parametrize("family", ["none", "implications", "rewrite"])
def test_it_is_refused_where_the_family_asks_no_questions(family: str) -> None:
    with pytest.raises(InvalidInput, match="ask no questions") as caught:
        load_run(None, {"spec.edit.family": family, "spec.improve.warmStart": "gold"})
    assert caught.value.field == "spec.improve.warmStart"
    assert "edit.family" in caught.value.remedy


async def test_nothing_to_learn_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seal.domains.knowledge.KnowledgeDomain.gold_parts", lambda *_, **__: ())
    with pytest.raises(InvalidInput, match="none of the gold questions of 3 training") as caught:
        async with workplace(tmp_path, spec=warm_spec(tmp_path)):
            pass
    assert caught.value.field == "spec.improve.warmStart"


async def test_rows_that_are_all_too_long_are_refused_in_prepare_by_field(tmp_path: Path) -> None:
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 12}))
    with pytest.raises(InvalidInput, match="each of the 3 rows of the warm start") as caught:
        async with workplace(tmp_path, spec=warm_spec(tmp_path), fakes=fakes):
            pass
    assert caught.value.field == "spec.improve.warmStart"


async def test_a_row_too_long_is_left_out_and_counted_and_the_others_are_learnt(
    tmp_path: Path,
) -> None:
    spec = warm_spec(tmp_path)
    write_rows(spec.data.train, [passage("Tome", words=2000), passage("Tower"), passage("Moor")])
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 800}))
    async with workplace(tmp_path, spec=spec, fakes=fakes) as place:
        summary = await place.run(Stage.IMPROVE, round=0)
        record = await learnt(place)
    assert record.dropped == {"too_long": 1}
    assert {row.context_id.rpartition("-")[0] for row in record.rows} == {"tower", "moor"}
    assert (summary.kept, summary.kept_parts) == (0, 2)


async def test_the_base_learns_what_the_gold_questions_would_be_as_an_edit_labelled_supervised(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=warm_spec(tmp_path)) as place:
        summary = await place.run(Stage.IMPROVE, round=0)
        request, record = m_step(place), await learnt(place)
    assert [(row.prompt, row.completion) for row in request.examples] == [
        (row.row.prompt, row.row.completion) for row in record.rows
    ]
    assert all("lamp 0" in row.completion for row in request.examples)
    assert not request.policy.HasField("adapter")
    assert request.export_mode == trainer_pb2.EXPORT_MODE_WITH_POLICY
    assert request.checkpoint_every_seconds > 0
    assert record.label == summary.label == WARM_START
    assert "supervised" in request.rows_note
    assert (summary.policy is not None, summary.result_sha256) == (True, record.sha256)


@pytest.mark.parametrize(
    ("start", "says"), [("policy", "supervised warm start"), ("base", "")], ids=str
)
def test_a_policy_that_goes_on_from_a_warm_start_says_so_on_its_card(
    start: Literal["policy", "base"], says: str, tmp_path: Path
) -> None:
    spec = warm_spec(tmp_path)
    spec = spec.model_copy(update={"improve": spec.improve.model_copy(update={"start": start})})
    warm = AdapterReference(path="adapters/a", sha256="a" * 64)
    request = improve_request((), run="r", round=1, spec=spec, policy=warm, warmed=True)
    assert says in request.rows_note and bool(request.rows_note) == bool(says)


async def test_no_question_of_a_validation_or_retained_context_ever_comes_in(
    tmp_path: Path,
) -> None:
    spec = warm_spec(tmp_path)
    held = [passage(f"Valley {n}", question=f"{HELD_OUT} {n}?") for n in range(3)]
    write_rows(spec.data.validation, held)
    write_rows(spec.data.retained, [passage("River", question=f"{HELD_OUT} at the river?")])
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.IMPROVE, round=0)
        request, record = m_step(place), await learnt(place)
        pinned = place.store.list(f"{RUN}/contexts")
    assert len(pinned) == 3, "all three files lie there to be read"
    assert record.rows
    for said in (str(request), record.model_dump_json()):
        assert HELD_OUT not in said and "Valley" not in said and "River" not in said


async def test_it_learns_the_contexts_that_the_first_round_takes_and_no_others(
    tmp_path: Path,
) -> None:
    spec = warm_spec(tmp_path)
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"train_contexts": 2})})
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.IMPROVE, round=0)
        await place.run(Stage.ROLLOUT, round=1)
        rolled = {record.context_id for record in await place.records(Stage.ROLLOUT, round=1)}
        taken = {row.context_id for row in (await learnt(place)).rows}
    assert taken == rolled and len(taken) == 2


async def test_one_that_diverges_makes_no_policy_and_is_not_called_supervised(
    tmp_path: Path,
) -> None:
    fakes = Fakes(
        outcome=lambda kind, name: (
            Outcome.DIVERGED if kind == "train" and "/improve/" in name else None
        )
    )
    async with workplace(tmp_path, spec=warm_spec(tmp_path), fakes=fakes) as place:
        summary = await place.run(Stage.IMPROVE, round=0)
        fakes.outcome = lambda kind, name: None
        await place.run(Stage.ROLLOUT, round=2, policy=POLICY)
        await place.run(Stage.IMPROVE, round=2, policy=POLICY)
        later = m_step(place, 2)
    assert (summary.policy, summary.label, summary.outcomes) == (None, "", {"diverged": 1})
    assert later.policy.HasField("adapter") and later.rows_note == ""


async def test_what_is_learnt_is_decided_once_whatever_the_code_says_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workplace(tmp_path, spec=warm_spec(tmp_path)) as place:
        first = await place.run(Stage.IMPROVE, round=0)
        place.store.remove(f"{place.files(Stage.IMPROVE, round=0).path}/summary.json")
        monkeypatch.setattr(
            "seal.domains.knowledge.KnowledgeDomain.gold_parts", lambda *_, **__: ()
        )
        again = await place.run(Stage.IMPROVE, round=0)
    assert (again.policy, again.kept_parts) == (first.policy, first.kept_parts)


async def test_rows_that_no_message_carries_go_by_a_file(tmp_path: Path) -> None:
    settings = IMPATIENT.model_copy(update={"max_request_bytes": 900})
    async with workplace(tmp_path, spec=warm_spec(tmp_path), settings=settings) as place:
        await place.run(Stage.IMPROVE, round=0)
        request, record = m_step(place), await learnt(place)
        whole = with_examples(request, place.store)
    assert not request.examples and request.examples_file.path.startswith(f"{RUN}/stages/r0-")
    assert [row.completion for row in whole.examples] == [row.row.completion for row in record.rows]


@pytest.mark.parametrize(("start", "beneath"), [("policy", True), ("base", False)])
async def test_the_first_round_starts_from_it_or_from_the_base(
    tmp_path: Path, start: str, beneath: bool
) -> None:
    improve = ImproveSettings.model_validate({"warm_start": "gold", "start": start})
    async with workplace(tmp_path, spec=warm_spec(tmp_path, improve=improve)) as place:
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        await place.run(Stage.IMPROVE, round=1, policy=POLICY)
        assert m_step(place, 1).policy.HasField("adapter") is beneath


async def test_round_0_of_a_run_without_one_has_no_m_step(tmp_path: Path) -> None:
    plain = warm_spec(tmp_path, improve=ImproveSettings())
    async with workplace(tmp_path, spec=plain) as place:
        with pytest.raises(InvalidInput, match="has no warm start"):
            await place.run(Stage.IMPROVE, round=0)


def test_a_run_of_no_rounds_reads_its_training_passages_for_it(tmp_path: Path) -> None:
    spec = warm_spec(tmp_path, rounds=0)
    assert len(load_data(spec)["train"]) == 3
    works = workload(spec, load_data(spec))
    assert [(work.round, work.stage) for work in works] == list(stages(spec))
    warm = works[1]
    assert (warm.contexts, warm.trainings, warm.answers) == (3, 1, 0)
    assert warm.steps == spec.improve.optimizer.epochs and warm.train_tokens > 0


def test_more_rows_than_a_training_takes_are_refused_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.worker.prepare.MAX_ROWS", 2)
    with pytest.raises(InvalidInput, match="the warm start may come to 3 rows") as caught:
        load_data(warm_spec(tmp_path, rounds=0))
    assert caught.value.field == "spec.data.trainContexts"


async def test_rounds_that_it_is_given_later_are_refused_if_their_m_step_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.worker.prepare.MAX_ROWS", 4)
    improve = ImproveSettings(warm_start="gold", keep_per_context=2)
    none = warm_spec(tmp_path, improve=improve, rounds=0)
    async with workplace(tmp_path, spec=none) as place:
        more = RestEMRun.of(RUN, none.model_copy(update={"rounds": 1}))
        with pytest.raises(InvalidInput, match="the M-step may come to 6 rows"):
            await open_run(place.store, more, resume=True)
        again = await open_run(place.store, RestEMRun.of(RUN, none), resume=True)
    assert not again.phase.terminal


def test_gold_questions_that_come_to_the_same_row_are_learnt_once(tmp_path: Path) -> None:
    spec = warm_spec(tmp_path, edit=EditSettings(family="self-qa-by-sentence"))
    write_rows(spec.data.train, [passage("Tower", question="What does the Tower hold?")])
    (context,) = load_data(spec)["train"]
    twice = replace(context, queries=context.queries * 2)
    assert len(gold_rows(spec, [twice])) == len(gold_rows(spec, [context])) == 1


@pytest.mark.parametrize("trained_prompt", ["worked", "short"])
async def test_rows_have_the_prompts_by_which_the_trained_policy_is_asked(
    tmp_path: Path, trained_prompt: str
) -> None:
    edit = {"family": "self-qa-by-sentence", "trained_prompt": trained_prompt}
    spec = warm_spec(tmp_path, edit=EditSettings.model_validate(edit))
    write_rows(spec.data.train, [passage("Tower", question="What does the Tower hold?")])
    (context,) = load_data(spec)["train"]
    asked = get_domain("knowledge").edit_prompts(
        context.title,
        context.text,
        "self-qa-by-sentence",
        "base",
        trained=trained_prompt == "short",
    )
    (gold,) = gold_rows(spec, [context])
    assert gold.row.prompt == asked[gold.row.part].prompt.text + asked[gold.row.part].start
    assert gold.row.prompt.endswith("What") and gold.row.completion.endswith("Tower stone")


async def test_the_report_reads_its_stage_and_its_label(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=warm_spec(tmp_path)) as place:
        await place.run(Stage.IMPROVE, round=0)
        files = read_run(place.store, RUN)
    stage = files.stage("improve", 0)
    assert stage is not None and stage.summaries[0].label == WARM_START
