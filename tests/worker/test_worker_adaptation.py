"""The stages of an adaptation on fakes: what is asked, kept apart, committed and refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from adaptation_harness import QUESTIONS, RUN, TOWERS, Adapting, adaptation_spec, put_document
from controller_harness import IMPATIENT
from fake_services import MODEL, Fakes, serve_fakes
from structlog.testing import capture_logs

from controller_svc.worker.adapt import HELD_OUT
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.questions import FOLDER, SAMPLES, question_requests
from controller_svc.worker.settings import WorkerSettings
from seal.adaptations.lesson import Lesson
from seal.artifacts import ArtifactStore
from seal.documents.places import question_key
from seal.domains.base import Query
from seal.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, SealError, Superseded
from seal.outcomes import Outcome
from seal.records import (
    AdaptationResult,
    AdapterReference,
    EvaluationRecord,
    GateReason,
    QuestionsRecord,
    Stage,
)
from seal.runs.epochs import claim_stage
from seal.settings import (
    AdaptationSpec,
    AdapterTraining,
    EvaluationSettings,
    GateSettings,
    InnerLoopSettings,
    OptimizerSettings,
    QuestionFormat,
)
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2


@asynccontextmanager
async def adapting(
    directory: Path,
    *,
    fakes: Fakes | None = None,
    settings: WorkerSettings = IMPATIENT,
    given: bool = True,
    text: str = TOWERS,
    **changes: object,
) -> AsyncIterator[tuple[Adapting, Fakes]]:
    """An adaptation and its fakes."""
    fakes = fakes or Fakes()
    store = ArtifactStore(str(directory / "artifacts"))
    fakes.store = store
    async with serve_fakes(fakes) as addresses, ServiceClients(addresses, settings) as clients:
        spec = adaptation_spec(directory, store, given=given, text=text, **changes)
        yield Adapting(spec, store, clients, settings), fakes


def requests_of(fakes: Fakes, kind: str) -> dict[str, object]:
    """Requests of a kind by their ids."""
    return {
        name.removeprefix(f"{kind} "): request
        for name, request in fakes.requests.items()
        if name.startswith(f"{kind} ")
    }


async def test_an_adaptation_ends_with_an_adapter_measured_against_base_and_passages(
    tmp_path: Path,
) -> None:
    async with adapting(tmp_path) as (place, fakes):
        result = await place.run_all()
        summary = await place.files(Stage.ADAPT).summary()
    assert result.adapter is not None and result.passages_adapter is not None
    assert result.adapter != result.passages_adapter
    assert result.rows["passage"] == 3 and result.rows["replay"] == 2 and result.rows["edit"] > 0
    evaluation = result.evaluation
    assert not evaluation.self_made
    assert (evaluation.questions, evaluation.retained_questions) == (4, 4)
    assert {score.model for score in evaluation.scores} == {"base", "passages", "adapter"}
    assert {one.against for one in evaluation.differences} == {"base", "passages"}
    assert {score.model for score in evaluation.retained} == {"base", "adapter"}
    assert result.gate.message
    assert summary is not None and summary.result == result
    assert len(summary.model_dump_json()) < 4096
    asked = requests_of(fakes, "evaluate")
    assert {name.split("/")[2] for name in asked if "/adapt/" in name} == {"adapt"}
    for name, request in asked.items():
        assert isinstance(request, evaluator_pb2.EvaluateRequest)
        if "/adapt/" in name:
            is_open = any(query.context for query in request.queries)
            assert is_open == ("/retained/" in name)


async def test_an_adaptation_goes_on_with_no_other_judge_than_it_was_begun_with(
    tmp_path: Path,
) -> None:
    evaluation = EvaluationSettings(question_format="few-shot", grader="judge")
    fakes = Fakes(judge="a-judge")
    async with adapting(tmp_path, fakes=fakes, evaluation=evaluation) as (place, _):
        await place.run(Stage.PREPARE)
        fakes.judge = "another-judge"
        with pytest.raises(Conflict, match="'another-judge'"):
            await place.run(Stage.ROLLOUT)


async def test_a_passage_without_questions_runs_no_race(tmp_path: Path) -> None:
    inner = InnerLoopSettings(
        student="base", repeats=2, racing=(1,), optimizer=OptimizerSettings(epochs=2)
    )
    async with adapting(tmp_path, inner=inner) as (place, fakes):
        await place.run(Stage.PREPARE)
        summary = await place.run(Stage.ROLLOUT)
    assert sum(summary.outcomes.values()) == 2 * (3 + 1)
    assert len([name for name in requests_of(fakes, "evaluate") if "/baseline/" in name]) == 2


async def test_a_judge_grades_what_edits_are_chosen_by_and_nothing_else(tmp_path: Path) -> None:
    evaluation = EvaluationSettings(question_format="few-shot", grader="judge")
    fakes = Fakes(judge="a-judge")
    async with adapting(tmp_path, fakes=fakes, given=False, evaluation=evaluation) as (place, _):
        await place.run_all()
    graders: dict[str, set[tuple[int, str]]] = {}
    for name, request in requests_of(fakes, "evaluate").items():
        assert isinstance(request, evaluator_pb2.EvaluateRequest)
        stage = "rollout" if "/baseline/" in name else name.split("/")[2]
        graders.setdefault(stage, set()).add((request.grader, request.judge))
    by_words = {(evaluator_pb2.GRADER_F1, "")}
    judged = {(evaluator_pb2.GRADER_JUDGE, "a-judge")}
    assert graders == {"question": by_words, "rollout": judged, "adapt": by_words}


@pytest.mark.parametrize("given", [True, False])
async def test_nothing_that_learns_or_chooses_ever_sees_a_question_of_the_test(
    tmp_path: Path, given: bool
) -> None:
    async with adapting(tmp_path, given=given) as (place, fakes):
        await place.run_all()
        answers = await place.files(Stage.ADAPT).committed(HELD_OUT, EvaluationRecord)
        lesson = (await place.files(Stage.ADAPT).committed("lesson", Lesson))["rows"]
    test = {question_key(answer.question) for answer in answers["base"].answers}
    assert test
    rewards: set[str] = set()
    for name, request in requests_of(fakes, "evaluate").items():
        assert isinstance(request, evaluator_pb2.EvaluateRequest)
        if "/rollout/" in name or "/baseline/" in name:
            rewards |= {question_key(query.question) for query in request.queries}
    assert rewards and rewards.isdisjoint(test)
    learnt = [row.prompt + row.completion for row in lesson.rows]
    for request in requests_of(fakes, "train").values():
        assert isinstance(request, trainer_pb2.TrainAdapterRequest)
        if request.request_id.startswith(f"{RUN}/adapt/"):
            learnt += [row.prompt + row.completion for row in request.examples]
    assert not [row for row in learnt if any(key in question_key(row) for key in test)]


async def test_without_questions_the_model_keeps_what_it_knows_from_the_passage_alone(
    tmp_path: Path,
) -> None:
    async with adapting(tmp_path, given=False) as (place, fakes):
        for stage in (Stage.PREPARE, Stage.QUESTION):
            summary = await place.run(stage)
        made = await place.files(Stage.QUESTION).committed(FOLDER, QuestionsRecord)
        result = (await place.run_all()).evaluation
    assert result.self_made
    asked = [
        request
        for name, request in requests_of(fakes, "generate").items()
        if "/question/" in name and isinstance(request, generator_pb2.GenerateEditsRequest)
    ]
    assert {request.prompt.family for request in asked} == {"self-qa-by-sentence"}
    assert not any(request.policy.HasField("adapter") for request in asked)
    assert len(made) == 3 and summary.counts is not None
    kept = [one for record in made.values() for one in record.kept]
    assert kept and result.questions == sum(one.role == "held-out" for one in kept)
    assert summary.counts.questions_written == sum(record.written for record in made.values())
    assert summary.counts.reward_questions == sum(one.role == "reward" for one in kept)
    for record in made.values():
        assert record.written == len(record.kept) + sum(record.dropped.values())


@pytest.mark.parametrize(
    ("format", "asked"), [("few-shot", "reading"), ("plain", "plain"), ("chat", "chat")]
)
def test_the_model_is_shown_that_it_is_to_read_where_it_checks_its_own_questions(
    tmp_path: Path, format: QuestionFormat, asked: str
) -> None:
    spec = adaptation_spec(
        tmp_path,
        ArtifactStore(str(tmp_path / "artifacts")),
        given=False,
        evaluation=EvaluationSettings(question_format=format),
    )
    requests = question_requests(RUN, spec, base_sha256="b" * 64)
    query = Query("q", "Who?", ("Odo Pell",), context="Odo Pell built it.")
    assert requests.ask("check", 0, None, [query]).question_format == asked


async def test_a_passage_without_reward_questions_gets_one_edit_and_no_inner_loop(
    tmp_path: Path,
) -> None:
    async with adapting(tmp_path) as (place, _):
        await place.run(Stage.PREPARE)
        await place.run(Stage.ROLLOUT)
        records, _ = await place.files(Stage.ROLLOUT).read_records()
        result = (await place.run(Stage.ADAPT)).result
    by_edits = sorted((len(record.edits), len(record.inner_loops)) for record in records)
    assert by_edits == [(1, 0), (3, 3), (3, 3)]
    bare = next(record for record in records if len(record.edits) == 1)
    assert bare.baseline.reward is None
    assert result is not None and result.rows["passage"] == 3


async def test_the_policy_writes_and_the_base_learns_and_answers(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    files = tmp_path / "policy"
    files.mkdir()
    (files / "adapter_config.json").write_text("{}")
    policy = store.publish_directory(files, "some-run/adapters")
    async with adapting(tmp_path, policy=policy) as (place, fakes):
        await place.run_all()
    for name, request in (
        *requests_of(fakes, "train").items(),
        *requests_of(fakes, "evaluate").items(),
    ):
        assert not request.policy.HasField("adapter"), name  # type: ignore[attr-defined]
    writes = [request.policy.adapter.sha256 for request in requests_of(fakes, "generate").values()]  # type: ignore[attr-defined]
    assert set(writes) == {policy.sha256}


async def test_the_passages_alone_get_as_many_steps_as_everything(tmp_path: Path) -> None:
    async with adapting(tmp_path) as (place, fakes):
        await place.run_all()
    steps = {}
    for name in ("adapter", "passages"):
        request = fakes.requests[f"train {RUN}/adapt/{name}"]
        assert isinstance(request, trainer_pb2.TrainAdapterRequest)
        steps[name] = request.optimizer.epochs * len(request.examples)
        assert "passages" in request.rows_note
    assert 0 <= steps["passages"] - steps["adapter"] < 3


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("train", Outcome.DIVERGED), ("evaluate", Outcome.INERT), ("evaluate", Outcome.UNGRADED)],
)
async def test_an_adapter_without_a_score_is_refused_and_told_apart_from_a_bad_one(
    tmp_path: Path, kind: str, outcome: Outcome
) -> None:
    fakes = Fakes(
        outcome=lambda what, name: (
            outcome if what == kind and ("adapt/adapter" in name or "/adapter/" in name) else None
        )
    )
    async with adapting(tmp_path, fakes=fakes) as (place, _):
        result = await place.run_all()
    assert not result.gate.passed and result.gate.reason is GateReason.NO_SCORE
    assert result.evaluation.gain is None
    assert (result.adapter is None) == (kind == "train")
    assert {score.model for score in result.evaluation.scores} == {"base", "passages"}


async def test_a_gate_that_passes_publishes_by_its_record(tmp_path: Path) -> None:
    gate = GateSettings(min_gain=-1.0, confident=False, max_regression=1.0, retained_questions=2)
    async with adapting(tmp_path, gate=gate) as (place, _):
        result = await place.run_all()
        saved = await place.files(Stage.ADAPT).committed("result", AdaptationResult)
    assert result.gate.passed and result.gate.reason is None
    assert saved == {"result": result}


async def test_what_is_pinned_counts_whatever_becomes_of_the_documents(tmp_path: Path) -> None:
    async with adapting(tmp_path) as (place, _):
        before = await place.run(Stage.PREPARE)
        for path in place.store.list("documents"):
            place.store.remove(path)
        place.store.remove(f"{place.files(Stage.PREPARE).path}/summary.json")
        again = await place.run(Stage.PREPARE)
    assert again.counts == before.counts and again.result_sha256 == before.result_sha256
    assert before.counts is not None
    assert before.counts.passages == 3 and before.counts.documents == 1
    assert (before.counts.reward_questions, before.counts.held_out_questions) == (4, 4)


async def test_the_number_of_shards_does_not_show(tmp_path: Path) -> None:
    results = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with adapting(folder, given=False, shards=number) as (place, _):
            results.append((await place.run_all()).model_dump())
    assert results[0] == results[1]


async def test_rows_that_a_message_cannot_carry_go_by_a_file(tmp_path: Path) -> None:
    settings = IMPATIENT.model_copy(update={"max_request_bytes": 3500})
    fakes = Fakes(model=MODEL.model_copy(update={"max_message_bytes": 3500}))
    async with adapting(tmp_path, fakes=fakes, settings=settings) as (place, _):
        result = await place.run_all()
        request = fakes.requests[f"train {RUN}/adapt/adapter"]
        assert isinstance(request, trainer_pb2.TrainAdapterRequest)
        rows = trainer_pb2.TrainingExamples()
        rows.ParseFromString(place.store.read_bytes(request.examples_file.path))
    assert not request.examples and len(rows.examples) == sum(result.rows.values())


async def test_progress_tells_edits_steps_and_answers_to_the_end(tmp_path: Path) -> None:
    async with adapting(tmp_path, given=False) as (place, _):
        await place.run_all()
    last = {told.stage: told for told in place.told}
    assert set(last) == {Stage.QUESTION, Stage.ROLLOUT, Stage.ADAPT}
    for told in last.values():
        assert told.edits_done == told.edits_total
        assert told.evaluated_queries == told.queries_total > 0
        assert told.training_fraction == 1.0
    assert last[Stage.ADAPT].trained_steps > 0 and last[Stage.ADAPT].trainings_total == 2
    assert last[Stage.QUESTION].edits_total == 3 * SAMPLES


async def test_an_older_controllers_worker_commits_no_lesson(tmp_path: Path) -> None:
    async with adapting(tmp_path) as (place, _):
        await place.run(Stage.PREPARE)
        await place.run(Stage.ROLLOUT)
        await claim_stage(place.store, RUN, 0, Stage.ADAPT, 2)
        with pytest.raises(Superseded):
            await place.run(Stage.ADAPT, epoch=1)
        assert await place.files(Stage.ADAPT).committed("lesson", Lesson) == {}


SHARD = f"{RUN}/stages/r0-adapt/shard-0000"


async def test_what_is_committed_of_the_last_stage_is_not_done_again(tmp_path: Path) -> None:
    fakes = Fakes()
    async with adapting(tmp_path, fakes=fakes) as (place, _):
        await place.run(Stage.PREPARE)
        await place.run(Stage.ROLLOUT)
        fakes.fail = lambda kind, name, call: (
            grpc.StatusCode.FAILED_PRECONDITION if "retained/adapter" in name else None
        )
        with pytest.raises(PreconditionFailed):
            await place.run(Stage.ADAPT)
        fakes.fail = lambda kind, name, call: None
        before = dict(fakes.calls)
        committed = {path.removesuffix(".json") for path in place.store.list(f"{RUN}/stages")}
        await place.run(Stage.ADAPT)
        again = {name for name in fakes.calls if fakes.calls[name] != before.get(name, 0)}
    assert ("evaluate", f"{RUN}/r0/adapt/retained/adapter/0") in again
    assert {kind for kind, _ in again} == {"evaluate"}
    asked = {name.removeprefix(f"{RUN}/r0/adapt/").removesuffix("/0") for _, name in again}
    assert not {f"{SHARD}/{name}" for name in asked} & committed
    assert f"{SHARD}/trainings/adapter" in committed


Change = Callable[[AdaptationSpec], AdaptationSpec]


def with_data(**update: object) -> Change:
    return lambda spec: spec.model_copy(update={"data": spec.data.model_copy(update=update)})


def other_digest(spec: AdaptationSpec) -> AdaptationSpec:
    document = spec.data.documents[0].model_copy(update={"sha256": "0" * 64})
    return with_data(documents=(document,))(spec)


def lost(spec: AdaptationSpec) -> AdaptationSpec:
    document = spec.data.documents[0].model_copy(update={"path": "documents/lost"})
    return with_data(documents=(document,))(spec)


def replaying(rows: int) -> Change:
    return lambda spec: spec.model_copy(update={"adapter": AdapterTraining(replay_rows=rows)})


def with_policy(spec: AdaptationSpec) -> AdaptationSpec:
    policy = AdapterReference(path="runs/adapters/x", sha256="a" * 64)
    return spec.model_copy(update={"policy": policy})


def many_epochs(spec: AdaptationSpec) -> AdaptationSpec:
    optimizer = OptimizerSettings(epochs=1000, batch_size=1)
    many = spec.inner.examples.model_copy(update={"max_examples": 1000})
    inner = spec.inner.model_copy(update={"examples": many})
    adapter = AdapterTraining(optimizer=optimizer)
    return spec.model_copy(update={"adapter": adapter, "inner": inner})


def repeating(times: int, *, epochs: int = 1) -> Change:
    """Passages are learnt so often, in inner loops of so many epochs."""

    def change(spec: AdaptationSpec) -> AdaptationSpec:
        examples = spec.inner.examples.model_copy(update={"passage_repeats": times})
        optimizer = OptimizerSettings(epochs=epochs, batch_size=1)
        update = {"examples": examples, "optimizer": optimizer}
        return spec.model_copy(update={"inner": spec.inner.model_copy(update=update)})

    return change


def long_passages(spec: AdaptationSpec) -> AdaptationSpec:
    passages = spec.passages.model_copy(update={"max_tokens": MODEL.max_positions + 1})
    return spec.model_copy(update={"passages": passages})


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        (lost, NotFound, "documents[0]"),
        (other_digest, InvalidInput, "documents[0].sha256"),
        (with_policy, NotFound, "spec.policy"),
        (replaying(1000), InvalidInput, "spec.adapter.replayRows"),
        (many_epochs, InvalidInput, "spec.adapter.optimizer.epochs"),
        (repeating(20_001), InvalidInput, "documents"),
        (repeating(1000, epochs=1000), InvalidInput, "spec.inner.optimizer.epochs"),
        (long_passages, InvalidInput, "spec.passages.maxTokens"),
    ],
)
async def test_what_can_be_known_is_refused_before_anything_is_written(
    tmp_path: Path, change: Change, error: type[SealError], field: str
) -> None:
    async with adapting(tmp_path) as (place, fakes):
        place.spec = change(place.spec)
        with capture_logs() as logs, pytest.raises(error) as caught:
            await place.run(Stage.PREPARE)
    assert caught.value.field == field and caught.value.remedy
    assert not {kind for kind, _ in fakes.calls}
    _says_nothing(str(caught.value), json.dumps(logs, default=str))


async def test_documents_of_which_the_model_takes_nothing_are_refused_without_their_words(
    tmp_path: Path,
) -> None:
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 8}))
    async with adapting(tmp_path, fakes=fakes) as (place, _):
        with capture_logs() as logs, pytest.raises(InvalidInput) as caught:
            await place.run(Stage.PREPARE)
    assert caught.value.field == "spec.passages.maxTokens"
    _says_nothing(str(caught.value), json.dumps(logs, default=str))


async def test_a_whole_adaptation_logs_no_word_of_a_document_or_a_question(tmp_path: Path) -> None:
    logs: list[object] = []
    for given in (True, False):
        folder = tmp_path / str(given)
        folder.mkdir()
        with capture_logs() as entries:
            async with adapting(folder, given=given) as (place, _):
                await place.run_all()
        logs += entries
    assert logs
    _says_nothing(json.dumps(logs, default=str))


def _says_nothing(*texts: str) -> None:
    """No text tells anything of the documents, their headings or questions."""
    told = [word for pair in QUESTIONS for word in pair if len(word) > 4]
    told += ["Old tower", "New tower", "old-tower", "Marn", "geese", "blue slate"]
    for text in texts:
        assert not [word for word in told if word.casefold() in text.casefold()]


async def test_a_retained_set_of_nothing_but_what_is_learnt_is_refused(tmp_path: Path) -> None:
    async with adapting(tmp_path) as (place, _):
        row = {
            "title": "Any",
            "context": "The low tower stands alone there.",
            "questions": [{"question": "What stands alone?", "answer": "The low tower"}],
        }
        (tmp_path / "retained.jsonl").write_text(json.dumps(row) + "\n")
        text = "# Any\n\nThe low tower stands alone there.\n"
        document = put_document(place.store, "any.md", text)
        place.spec = with_data(documents=(document,), questions=None)(place.spec)
        questions = place.spec.questions.model_copy(update={"source": "self-made"})
        place.spec = place.spec.model_copy(update={"questions": questions})
        with pytest.raises(InvalidInput) as caught:
            await place.run(Stage.PREPARE)
    assert caught.value.field == "spec.data.retained"


async def test_questions_of_documents_and_those_given_beside_them_have_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with adapting(tmp_path) as (place, _):
        row = {
            "title": "Any",
            "context": "The low tower stands alone there.",
            "questions": [{"question": "What stands alone?", "answer": "The low tower"}],
        }
        rows = put_document(place.store, "any.jsonl", json.dumps(row) + "\n")
        place.spec = with_data(documents=(*place.spec.data.documents, rows))(place.spec)
        monkeypatch.setattr("seal.documents.questions.MAX_GIVEN_QUESTIONS", len(QUESTIONS))
        with pytest.raises(InvalidInput, match="the limit is") as caught:
            await place.run(Stage.PREPARE)
        assert caught.value.field == "questions"
        monkeypatch.setattr("seal.documents.questions.MAX_GIVEN_QUESTIONS", len(QUESTIONS) + 1)
        assert (await place.run(Stage.PREPARE)).counts
