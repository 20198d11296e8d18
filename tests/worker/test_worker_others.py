"""Runs of several models: one writes for another, one at an endpoint writes, one judges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import grpc
import pytest
from controller_harness import (
    IMPATIENT,
    POLICY,
    RUN,
    Workplace,
    serve_all,
    small_spec,
    workplace,
)
from fake_services import MODEL, Fakes
from few_shot import few_shot_spec

from controller_svc.core import Phase
from controller_svc.local.observer import SILENT
from controller_svc.local.world import run_local
from controller_svc.worker.calls import Calls
from controller_svc.worker.evaluator_client import EvaluatorClient
from controller_svc.worker.others import check_others
from controller_svc.worker.rating import best_rated
from controller_svc.worker.requests import LoopKey, Requests
from controller_svc.worker.settings import DEFAULT_SETTINGS
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, InvalidInput, SealError, Transient
from seal.outcomes import Outcome
from seal.records import (
    AdapterReference,
    ContextEditsRecord,
    EditRecord,
    ExampleRecord,
    InnerLoopKind,
    RatingsRecord,
    Stage,
)
from seal.report.numbers.build import build_report
from seal.resources import RestEMRun
from seal.runs.improve import improve_request
from seal.runs.store import read_prepared, read_selection
from seal.settings import (
    EditGenerator,
    EditSettings,
    EvaluationSettings,
    ImproveSettings,
    InnerLoopSettings,
    OptimizerSettings,
    RunSpec,
    ValidationSettings,
)
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

WRITER = "writing-model"
WRITER_SHA256 = "c" * 64
GENERATOR = EditGenerator(base_url="http://127.0.0.1:9/v1", model="great-model")
Request = (
    generator_pb2.GenerateEditsRequest
    | trainer_pb2.TrainAdapterRequest
    | evaluator_pb2.EvaluateRequest
)


def rows_note(spec: RunSpec, kind: InnerLoopKind, policy: AdapterReference | None = None) -> str:
    """What an inner loop's adapter says that it was trained on."""
    requests = Requests(run=RUN, spec=spec, stage=Stage.VALIDATE, round=1, policy=policy)
    return requests.train(LoopKey(kind=kind, context_id="c", candidate=0, repeat=0), ()).rows_note


def cross_spec(directory: Path, **changes: object) -> RunSpec:
    """One model writes, another learns."""
    values: dict[str, object] = {
        "rounds": 2,
        "edit": EditSettings(k=3, model=WRITER),
        "inner": InnerLoopSettings(
            student="base", repeats=1, optimizer=OptimizerSettings(epochs=2)
        ),
        "validation": ValidationSettings(edits_per_context=1, retained_queries=1),
    }
    return small_spec(directory, **(values | changes))


def writers() -> Fakes:
    return Fakes(
        model=MODEL.model_copy(update={"base_sha256": WRITER_SHA256, "max_row_tokens": 1024})
    )


def asked(fakes: Fakes, kind: str) -> list[Request]:
    """The last request of each id, in order of first arrival."""
    found = [fakes.requests[f"{what} {name}"] for what, name in fakes.calls if what == kind]
    return found  # type: ignore[return-value]


def bases(requests: Sequence[Request]) -> set[tuple[str, str]]:
    return {(request.policy.base_model, request.policy.base_sha256) for request in requests}


async def test_the_writer_is_asked_for_edits_and_the_student_trained_and_asked(
    tmp_path: Path,
) -> None:
    spec, other = cross_spec(tmp_path), writers()
    async with workplace(tmp_path, spec=spec, writer=other) as place:
        await place.run(Stage.VALIDATE, round=0)
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        own = place.fakes
        student = {(spec.model, MODEL.base_sha256)}
        assert bases(asked(other, "generate")) == {(WRITER, WRITER_SHA256)}
        assert bases(asked(own, "train")) == bases(asked(own, "evaluate")) == student
        assert not asked(own, "generate") and not asked(other, "train")
        assert not asked(other, "evaluate")
        written = asked(other, "generate")
        assert [one.policy.adapter.sha256 for one in written] == ["", POLICY.sha256]
        taught = [*asked(own, "train"), *asked(own, "evaluate")]
        assert not any(one.policy.HasField("adapter") for one in taught)


async def test_the_m_step_trains_the_writer_at_its_own_trainer_and_rows_are_counted_there(
    tmp_path: Path,
) -> None:
    other = writers()
    async with workplace(tmp_path, spec=cross_spec(tmp_path), writer=other) as place:
        await place.run(Stage.ROLLOUT, round=1)
        summary = await place.run(Stage.IMPROVE, round=1)
        (request,) = asked(other, "train")
        assert summary.policy is not None and summary.kept > 0
        assert bases([request]) == {(WRITER, WRITER_SHA256)}
        assert not any("/improve/" in one.request_id for one in asked(place.fakes, "train"))


async def test_prepare_pins_the_digests_of_both_models(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=cross_spec(tmp_path), writer=writers()) as place:
        prepared = await read_prepared(place.store, RUN)
    assert prepared is not None and prepared.writer is not None
    assert prepared.model.base_sha256 == MODEL.base_sha256
    assert (prepared.writer.base_model, prepared.writer.base_sha256) == (WRITER, WRITER_SHA256)
    assert prepared.policy_model == prepared.writer


@pytest.mark.parametrize(
    ("takes", "field"),
    [
        ({"max_rank": 8}, "spec.improve.lora.rank"),
        ({"max_positions": 256}, "spec.edit.maxTokens"),
    ],
)
async def test_what_the_writer_cannot_take_is_refused_by_its_field(
    takes: dict[str, object], field: str, tmp_path: Path
) -> None:
    other = Fakes(model=MODEL.model_copy(update=takes))
    with pytest.raises(InvalidInput) as refused:
        async with workplace(tmp_path, spec=cross_spec(tmp_path), writer=other):
            pass
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "spec.edit.model"),
        ({"edit": EditSettings(k=3, generator=GENERATOR)}, "spec.edit.generator"),
        (
            {"edit": EditSettings(k=3), "evaluation": EvaluationSettings(grader="judge")},
            "spec.evaluation.grader",
        ),
        (
            {
                "edit": EditSettings(k=3),
                "inner": InnerLoopSettings(preselect=2, preselect_by="rubric"),
            },
            "spec.inner.preselectBy",
        ),
    ],
)
async def test_a_model_that_nobody_serves_is_refused_before_the_first_costly_step(
    changes: dict[str, object], field: str, tmp_path: Path
) -> None:
    fakes = Fakes()
    with pytest.raises(InvalidInput) as refused:
        async with workplace(tmp_path, spec=cross_spec(tmp_path, **changes), fakes=fakes):
            pass
    assert refused.value.field == field and refused.value.remedy
    assert not fakes.calls


async def run_of(
    spec: RunSpec,
    root: Path,
    fakes: Fakes,
    *,
    writer: Fakes | None = None,
    edit_generator: Fakes | None = None,
    resume: bool = False,
) -> Phase:
    async with serve_all(fakes, writer=writer, edit_generator=edit_generator) as addresses:
        status = await run_local(
            RestEMRun.of(RUN, spec),
            root=root,
            services=addresses,
            resume=resume,
            progress=SILENT,
            settings=IMPATIENT,
        )
    return status.phase


async def test_a_run_of_two_models_goes_to_its_end_and_has_a_report(tmp_path: Path) -> None:
    spec, own, other = cross_spec(tmp_path), Fakes(), writers()
    assert await run_of(spec, tmp_path / "runs", own, writer=other) is Phase.COMPLETE
    report = await asyncio.to_thread(build_report, ArtifactStore(str(tmp_path / "runs")), RUN)
    assert report.spec.writer == WRITER and len(report.rollouts) == 2
    alone = [one.request_id for one in asked(own, "evaluate") if "/retained/" in one.request_id]
    assert [name for name in alone if "validate/retained" in name] == [
        f"{RUN}/r0/validate/retained/0"
    ], "the policy only writes: what it forgets says nothing about the student"


async def test_a_run_does_not_go_on_with_another_writer(tmp_path: Path) -> None:
    spec = cross_spec(tmp_path)
    own = Fakes(fail=lambda kind, name, call: _broken(kind, name))
    other = writers()
    assert await run_of(spec, tmp_path / "runs", own, writer=other) is Phase.FAILED
    changed = Fakes(model=MODEL.model_copy(update={"base_sha256": "d" * 64}))
    with pytest.raises(Conflict) as refused:
        await run_of(spec, tmp_path / "runs", Fakes(), writer=changed, resume=True)
    assert refused.value.field == "spec.edit.model"
    assert WRITER_SHA256 in refused.value.message and "d" * 64 in refused.value.message
    assert await run_of(spec, tmp_path / "runs", Fakes(), writer=other, resume=True) is (
        Phase.COMPLETE
    )


def _broken(kind: str, name: str) -> grpc.StatusCode | None:
    return grpc.StatusCode.INTERNAL if kind == "train" and "r1/" in name else None


async def test_an_endpoint_writes_until_there_is_a_policy_and_the_m_step_is_labelled(
    tmp_path: Path,
) -> None:
    edit = EditSettings(k=3, generator=GENERATOR)
    spec = cross_spec(tmp_path, edit=edit, rounds=2)
    own, endpoint = Fakes(), Fakes()
    assert await run_of(spec, tmp_path / "runs", own, edit_generator=endpoint) is Phase.COMPLETE
    stages = [one.request_id.split("/edits/")[0] for one in asked(endpoint, "generate")]
    assert stages == [f"{RUN}/r0/validate", f"{RUN}/r1/rollout"]
    assert bases(asked(endpoint, "generate")) == {("great-model", "")}
    assert not any(one.policy.HasField("adapter") for one in asked(endpoint, "generate"))
    assert bases(asked(own, "generate")) == {(spec.model, MODEL.base_sha256)}
    assert all(one.policy.HasField("adapter") for one in asked(own, "generate"))
    store = ArtifactStore(str(tmp_path / "runs"))
    selections = [await read_selection(store, RUN, round) for round in (1, 2)]
    assert [selection.label for selection in selections if selection] == [
        "edits by great-model",
        "",
    ]
    report = await asyncio.to_thread(build_report, store, RUN)
    assert [rollout.label for rollout in report.rollouts] == ["edits by great-model", ""]


async def test_the_key_file_of_an_endpoint_may_change_and_its_model_may_not(
    tmp_path: Path,
) -> None:
    def spec(**changes: object) -> RunSpec:
        generator = GENERATOR.model_copy(update=changes)
        return cross_spec(tmp_path, rounds=0, edit=EditSettings(k=3, generator=generator))

    root, fails = tmp_path / "runs", Fakes(fail=lambda kind, *_: _internal(kind))
    assert await run_of(spec(), root, fails, edit_generator=Fakes()) is Phase.FAILED
    with pytest.raises(Conflict) as refused:
        await run_of(spec(model="other"), root, Fakes(), edit_generator=Fakes(), resume=True)
    assert refused.value.field == "spec.edit.generator.model"
    moved = spec(api_key_file="/elsewhere/key")
    assert await run_of(moved, root, Fakes(), edit_generator=Fakes(), resume=True) is (
        Phase.COMPLETE
    )


def _internal(kind: str) -> grpc.StatusCode | None:
    return grpc.StatusCode.INTERNAL if kind == "train" else None


def judged_spec(directory: Path) -> RunSpec:
    return small_spec(directory, evaluation=EvaluationSettings(grader="judge"))


async def test_a_run_asks_for_verdicts_and_is_pinned_to_its_judge(tmp_path: Path) -> None:
    async with workplace(
        tmp_path, spec=judged_spec(tmp_path), fakes=Fakes(judge="a-judge")
    ) as place:
        await place.run(Stage.ROLLOUT, round=1)
        graders = {one.grader for one in asked(place.fakes, "evaluate")}  # type: ignore[union-attr]
        prepared = await read_prepared(place.store, RUN)
        assert prepared is not None and prepared.judge == "a-judge"
        place.fakes.judge = "another-judge"
        with pytest.raises(Conflict) as refused:
            await check_others(RUN, place.spec, prepared, place.clients)
    assert graders == {evaluator_pb2.GRADER_JUDGE}
    assert refused.value.field == "spec.evaluation.grader"


async def test_no_shard_mixes_the_verdicts_of_two_judges(tmp_path: Path) -> None:
    """Not even where the evaluator is started anew while the shard is at work."""
    fakes, judges = Fakes(judge="a-judge"), dict[str, str]()

    def started_anew(kind: str, name: str, call: int) -> None:
        if len(judges) == 3:
            fakes.judge = "another-judge"
        if kind == "evaluate":
            judges[name] = fakes.judge

    fakes.fail = started_anew
    async with workplace(tmp_path, spec=judged_spec(tmp_path), fakes=fakes) as place:
        with pytest.raises(Conflict, match="by 'a-judge', the judge is now 'another-judge'"):
            await place.run(Stage.ROLLOUT, round=1)
        files = place.files(Stage.ROLLOUT, round=1)
        loops = (await files.inner_loops()).values()
        judged = len(await files.baselines()) + sum(loop.evaluation is not None for loop in loops)
    assert list(judges.values()).count("a-judge") == 3 and judged <= 3


async def test_a_judge_that_does_not_answer_is_given_up_like_a_stream_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, timeouts = 1000.0, list[float]()

    async def hang(request: object, **call: float) -> None:
        nonlocal now
        now += call["timeout"]
        timeouts.append(call["timeout"])
        raise Transient("the deadline has passed")

    monkeypatch.setattr("controller_svc.worker.calls.monotonic", lambda: now)
    settings = DEFAULT_SETTINGS.model_copy(
        update={"retry_initial_seconds": 0.001, "retry_max_seconds": 0.001}
    )
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        client = EvaluatorClient(Calls(settings), channel)
        monkeypatch.setattr(client, "_stub", SimpleNamespace(DescribeJudge=hang))
        with pytest.raises(Transient):
            await client.describe_judge()
    assert set(timeouts) == {settings.silence_timeout_seconds}
    assert sum(timeouts) <= settings.patience_seconds + 2 * settings.silence_timeout_seconds


def rubric_spec(directory: Path) -> RunSpec:
    return small_spec(
        directory,
        rounds=1,
        edit=EditSettings(family="self-qa", k=5),
        inner=InnerLoopSettings(preselect=2, preselect_by="rubric", repeats=1),
        validation=ValidationSettings(edits_per_context=2, retained_queries=0),
    )


def rated_by_place(title: str, candidate: int) -> float | None:
    return {0: None, 1: 0.2, 2: 0.9, 3: 0.1, 4: 0.8}[candidate]


async def trained(place: Workplace) -> dict[str, list[int]]:
    records = await place.records(Stage.ROLLOUT, round=1)
    return {
        record.title: [loop.candidate for loop in record.inner_loops if loop.kind == "edit"]
        for record in records
    }


async def test_the_best_by_the_rubric_are_trained_on_and_gold_answers_are_not_looked_at(
    tmp_path: Path,
) -> None:
    fakes = Fakes(judge="a-judge", rating=rated_by_place)
    async with workplace(tmp_path, spec=rubric_spec(tmp_path), fakes=fakes) as place:
        await place.run(Stage.ROLLOUT, round=1)
        ratings = await place.files(Stage.ROLLOUT, round=1).committed("ratings", RatingsRecord)
        found = await trained(place)
        requests = [fakes.requests[f"rate {name}"] for name in place.asked("rate")]
    assert len(found) == len(ratings) == len(requests) == 3
    for record in ratings.values():
        best = sorted(range(5), key=lambda n: (1.0 if (r := record.ratings[n]) is None else -r, n))[
            :2
        ]
        assert sorted(best) in found.values()
    shown = "".join(str(request) for request in requests)
    assert "lamp 0" not in shown and "What is Tower" not in shown
    assert await _validation_trains_on_all(tmp_path)


async def _validation_trains_on_all(directory: Path) -> bool:
    fakes = Fakes(judge="a-judge")
    (directory / "validation").mkdir()
    spec = rubric_spec(directory)
    async with workplace(directory / "validation", spec=spec, fakes=fakes) as place:
        await place.run(Stage.VALIDATE, round=0)
        return not place.asked("rate")


async def test_a_rating_decides_once_also_after_a_restart(tmp_path: Path) -> None:
    fakes = Fakes(judge="a-judge", rating=rated_by_place)
    fakes.fail = lambda kind, name, call: _internal(kind)
    async with workplace(tmp_path, spec=rubric_spec(tmp_path), fakes=fakes) as place:
        with pytest.raises(SealError):
            await place.run(Stage.ROLLOUT, round=1)
        rated = list(place.asked("rate"))
        assert len(rated) == 3
        fakes.fail = lambda kind, name, call: None
        fakes.rating = lambda title, candidate: 1.0 - candidate / 10
        await place.run(Stage.ROLLOUT, round=1)
        assert fakes.calls[("rate", rated[0])] == 1 and place.asked("rate") == rated
        ratings = await place.files(Stage.ROLLOUT, round=1).committed("ratings", RatingsRecord)
    assert all(record.ratings[1] in (0.2, None) for record in ratings.values())


async def test_without_any_rating_the_first_edits_are_trained_on(tmp_path: Path) -> None:
    fakes = Fakes(judge="a-judge", rating=lambda title, candidate: None)
    async with workplace(tmp_path, spec=rubric_spec(tmp_path), fakes=fakes) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        ratings = await place.files(Stage.ROLLOUT, round=1).committed("ratings", RatingsRecord)
    assert all(set(record.ratings) == {None} for record in ratings.values())
    assert sum(summary.outcomes.values()) == 3 * 2


def test_edits_rank_by_rating_then_examples_then_place() -> None:
    def edit(candidate: int, examples: int) -> EditRecord:
        return EditRecord(
            context_id="c",
            candidate=candidate,
            seed=candidate,
            parts=(),
            examples=(ExampleRecord(prompt="", completion="x"),) * examples,
        )

    written = ContextEditsRecord(
        context_id="c",
        parts=(),
        edits=tuple(edit(candidate, examples) for candidate, examples in enumerate((1, 1, 3, 2))),
        engine_seconds=0.0,
        outcome=Outcome.OK,
    )
    assert best_rated(written, (None, 0.5, 0.5, 0.0), count=2) == (1, 2)
    assert best_rated(written, (None, 0.5, 0.5, 0.0), count=1) == (2,)
    assert best_rated(written, (None, 0.5, 0.5, 0.0), count=3) == (1, 2, 3)
    assert best_rated(written, (None,) * 4, count=2) == (2, 3)


def test_an_adapter_says_who_wrote_what_it_was_trained_on(tmp_path: Path) -> None:
    own = small_spec(tmp_path)
    by_endpoint = small_spec(tmp_path, edit=EditSettings(k=3, generator=GENERATOR))
    assert rows_note(own, "edit") == rows_note(by_endpoint, "edit", POLICY) == ""
    for spec in (by_endpoint, cross_spec(tmp_path)):
        assert rows_note(spec, "edit") == "text that another language model wrote"
        assert rows_note(spec, "passage") == "the text of a passage"


def test_an_adapter_of_a_few_shot_task_says_that_no_model_wrote_its_rows(tmp_path: Path) -> None:
    spec = few_shot_spec(tmp_path)
    notes = [rows_note(spec, kind) for kind in ("edit", "fixed-edit", "oracle-edit")]
    assert all(note.startswith("demonstrations of a task, augmented as ") for note in notes)
    assert [note.rpartition(" as ")[2] for note in notes] == [
        "a language model chose",
        "the run's settings say",
        "the run's settings say",
    ]


@pytest.mark.parametrize(
    ("start", "policy", "note"),
    [
        ("policy", None, "text that another language model wrote"),
        ("base", None, "text that another language model wrote"),
        (
            "policy",
            POLICY,
            "text that a language model wrote for itself, on top of text that another one wrote",
        ),
        ("base", POLICY, ""),
    ],
)
def test_a_policy_says_who_wrote_what_it_has_learnt(
    start: Literal["policy", "base"], policy: AdapterReference | None, note: str, tmp_path: Path
) -> None:
    spec = small_spec(
        tmp_path,
        edit=EditSettings(k=3, generator=GENERATOR),
        improve=ImproveSettings(start=start),
    )
    request = improve_request((), run=RUN, round=1, spec=spec, policy=policy)
    assert request.rows_note == note
    own = small_spec(tmp_path, improve=ImproveSettings(start=start))
    assert improve_request((), run=RUN, round=1, spec=own, policy=policy).rows_note == ""
