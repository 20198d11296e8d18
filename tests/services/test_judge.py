"""The judge: what it is asked, what it is paid for, and that its silence is never a wrong grade."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from fake_engine import FakeEngine
from openai_server import (
    CUTS,
    HANGS,
    MALFORMED,
    MODEL,
    Call,
    OpenAIServer,
    Reply,
    fails,
    openai_server,
    says,
)
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    each_is_refused_by_its_field,
    evaluation_request,
    fake_cache,
    rating_request,
    read_all,
    refusal,
    serving,
)

import seal.endpoints.client
from evaluator_svc.judge import Asked, EditText, read_rating, read_verdict
from evaluator_svc.judging import open_judge
from evaluator_svc.service import register
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, InvalidInput, PreconditionFailed, SealError
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_FROM_WIRE, evaluation_record
from seal.rpc.errors import from_rpc_error
from seal.settings import EndpointLimits, EndpointSettings, JudgeSettings
from seal.v1 import evaluator_pb2, evaluator_pb2_grpc

IMPATIENT = EndpointLimits(patience_seconds=0.05, timeout_seconds=0.2)
PATIENT = EndpointLimits(patience_seconds=10, timeout_seconds=5)
MARKS = '{"correct": 5, "complete": 4, "plain": 3, "varied": 4}'


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.endpoints.client, "FIRST_PAUSE_SECONDS", 0.01)


@dataclass
class Court:
    """An evaluator with a judge, and the judge's endpoint."""

    stub: evaluator_pb2_grpc.EvaluatorServiceAsyncStub
    engine: FakeEngine
    server: OpenAIServer

    def evaluate(self, request: evaluator_pb2.EvaluateRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.Evaluate(request, timeout=DEADLINE_SECONDS)

    def rate(self, request: evaluator_pb2.RateEditsRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.RateEdits(request, timeout=DEADLINE_SECONDS)

    async def grades(
        self, answers: dict[str, str], *, golds: tuple[str, ...] = ("Ada",)
    ) -> evaluator_pb2.EvaluationResult:
        """Question -> what the model answers to it."""
        request = judged(answers, golds=golds)
        said = list(answers.values())
        self.engine.answer = lambda asked, index: said[index]
        return (await read_all(self.evaluate(request)))[-1].result


def judged(
    questions: dict[str, str] | list[str], *, golds: tuple[str, ...] = ("Ada",)
) -> evaluator_pb2.EvaluateRequest:
    queries = [
        evaluator_pb2.Query(query_id=str(place), question=question, answers=golds)
        for place, question in enumerate(questions)
    ]
    return evaluation_request(queries=queries, grader=evaluator_pb2.GRADER_JUDGE)


@asynccontextmanager
async def court(
    directory: Path,
    engine: FakeEngine,
    answer: Callable[[Call], Reply] | list[Reply] | Reply,
    *,
    limits: EndpointLimits = PATIENT,
    key_file: str = "",
) -> AsyncIterator[Court]:
    async with openai_server(answer) as server:
        endpoint = EndpointSettings(base_url=server.base_url, model=MODEL, api_key_file=key_file)
        judge = open_judge(JudgeSettings(endpoint=endpoint, limits=limits))
        store = ArtifactStore(f"file://{directory}/artifacts")
        adapters = fake_cache(store, engine)
        async with serving(
            functools.partial(register, engine=engine, adapters=adapters, judge=judge, pace=FAST)
        ) as channel:
            yield Court(evaluator_pb2_grpc.EvaluatorServiceStub(channel), engine, server)


def finds_right(*right: str) -> Callable[[Call], Reply]:
    """A judge that says yes to these answers."""

    def answer(call: Call) -> Reply:
        return says("Yes." if json.loads(call.asked)["student's answer"] in right else "no")

    return answer


async def test_the_reward_is_the_share_that_the_judge_finds_right_beside_every_cheap_grade(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, finds_right("It was Ada's work.")) as place:
        result = await place.grades({"Who?": "It was Ada's work.", "Whose?": "Bert", "When?": ""})
        asked = [json.loads(call.asked) for call in place.server.calls]
    record = evaluation_record(judged(["Who?", "Whose?", "When?"]), result)
    assert [answer.score for answer in record.answers] == [1.0, 0.0, 0.0]
    assert record.reward == pytest.approx(1 / 3) and record.ungraded == 0
    assert [answer.measures["contains"] for answer in record.answers] == [0.0, 0.0, 0.0]
    assert {one["question"] for one in asked} == {"Who?", "Whose?"}  # no words are wrong unasked
    assert all(one["right answers"] == ["Ada"] for one in asked)


async def test_the_same_question_gold_and_answer_are_paid_for_once(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, says("yes")) as place:
        for answer in ("Ada Byron", "Ada  Byron.", " Ada\nByron "):
            assert (await place.grades({"Who?": answer})).reward == 1.0
        assert len(place.server.calls) == 1
        await place.grades({"Who else?": "Ada Byron"})
        await place.grades({"Who?": "Ada Lovelace"})
        await place.grades({"Who?": "Ada Byron"}, golds=("Ada", "Lovelace"))
        assert len(place.server.calls) == 4


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-5 C", "5 C"),
        ("C++", "C#"),
        ("AB+", "AB-"),
        ("1/2", "12"),
        ("10:30", "1030"),
        ("5 mW", "5 MW"),
        ("10²", "102"),
    ],
)
async def test_answers_that_differ_in_a_sign_are_judged_each_by_itself(
    right: str, wrong: str, tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, finds_right(right)) as place:
        for first, second in ((right, wrong), (wrong, right)):
            question = f"What, if {first} is said first?"
            rewards = [(await place.grades({question: said})).reward for said in (first, second)]
            assert rewards == [float(first == right), float(second == right)]


def test_what_a_verdict_is_kept_by_is_small_and_its_own() -> None:
    passage = "The Sel flows into the sea. " * 2000
    keys = [
        Asked(passage, ("Ada", "Byron"), "Ada").key,
        Asked(passage, ("Ada\nByron",), "Ada").key,
        Asked(passage, ("Ada",), "Byron").key,
        EditText("The Sel", passage, passage).key,
        EditText("The Sel", passage, "").key,
    ]
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {32}


async def test_evaluations_at_once_share_a_verdict_that_is_on_its_way(
    tmp_path: Path, engine: FakeEngine
) -> None:
    slow = Reply(body=says("yes").body, seconds=0.2)
    engine.answer = lambda asked, index: "Ada Byron"
    async with court(tmp_path, engine, slow) as place:
        calls = [read_all(place.evaluate(judged(["Who?"]))) for _ in range(4)]
        results = await asyncio.gather(*calls)
        assert [messages[-1].result.reward for messages in results] == [1.0] * 4
        assert len(place.server.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        fails(500),
        fails(429, retry_after="30"),
        fails(401),
        fails(400),
        HANGS,
        CUTS,
        MALFORMED,
        says("perhaps"),
        says("yes and no"),
        says(""),
        says("The student says yes"),
        says("yes", model="another-model"),
    ],
)
async def test_without_a_readable_verdict_an_answer_is_ungraded_and_neither_wrong_nor_zero(
    answer: Reply, tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, answer, limits=IMPATIENT) as place:
        result = await place.grades({"Who?": "Ada", "Whose?": "Bert"})
    record = evaluation_record(judged(["Who?", "Whose?"]), result)
    assert (record.outcome, record.reward, record.ungraded) == (Outcome.UNGRADED, None, 2)
    assert [graded.score for graded in record.answers] == [None, None]
    assert [graded.answer for graded in record.answers] == ["Ada", "Bert"]
    assert record.answers[0].measures["exact"] == 1.0


async def test_a_missing_verdict_is_in_no_mean(tmp_path: Path, engine: FakeEngine) -> None:
    def answer(call: Call) -> Reply:
        said = json.loads(call.asked)["student's answer"]
        return fails(400) if said == "Bert" else says("yes")

    async with court(tmp_path, engine, answer) as place:
        result = await place.grades({"Who?": "Ada", "Whose?": "Bert", "What?": "Ada"})
    assert (result.reward, result.ungraded) == (1.0, 1)


async def test_an_unreadable_verdict_is_asked_for_again_the_next_time(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, [says("perhaps"), says("yes")]) as place:
        first, second = [await place.grades({"Who?": "Ada"}) for _ in range(2)]
    assert OUTCOME_FROM_WIRE[first.outcome] is Outcome.UNGRADED and second.reward == 1.0


async def test_a_rate_limit_is_waited_for(tmp_path: Path, engine: FakeEngine) -> None:
    async with court(tmp_path, engine, [fails(429, retry_after="0.2"), says("yes")]) as place:
        assert (await place.grades({"Who?": "Ada"})).reward == 1.0


async def test_beyond_its_budget_the_judge_is_not_asked(tmp_path: Path, engine: FakeEngine) -> None:
    limits = EndpointLimits(max_calls=2, patience_seconds=5)
    async with court(tmp_path, engine, says("yes"), limits=limits) as place:
        result = await place.grades({f"Who is number {n}?": "Ada" for n in range(5)})
        assert (result.ungraded, result.reward, len(place.server.calls)) == (3, 1.0, 2)


async def test_a_caller_that_leaves_takes_its_questions_along(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, HANGS) as place:
        call = place.evaluate(judged(["Who?", "Whose?"]))
        reading = asyncio.create_task(read_all(call))
        await place.server.until(lambda server: len(server.calls) == 2)
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await place.server.until(lambda server: server.left == 2)


async def test_without_a_judge_its_grades_and_ratings_are_refused_before_the_engine_is_asked(
    tmp_path: Path, engine: FakeEngine
) -> None:
    adapters = fake_cache(ArtifactStore(f"file://{tmp_path}/artifacts"), engine)
    async with serving(
        functools.partial(register, engine=engine, adapters=adapters, pace=FAST)
    ) as channel:
        stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        graded = await refusal(stub.Evaluate(judged(["Who?"]), timeout=DEADLINE_SECONDS))
        rated = await refusal(stub.RateEdits(rating_request(), timeout=DEADLINE_SECONDS))
        described = await described_as_error(stub)
    assert [type(error) for error in (graded, rated, described)] == [PreconditionFailed] * 3
    assert graded.field == "grader" and "--judge-base-url" in graded.remedy
    assert engine.evaluated == []


async def described_as_error(stub: evaluator_pb2_grpc.EvaluatorServiceAsyncStub) -> SealError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.DescribeJudge(evaluator_pb2.DescribeJudgeRequest(), timeout=DEADLINE_SECONDS)
    return from_rpc_error(refused.value)


async def test_another_judge_than_a_request_names_is_refused_before_the_engine_is_asked(
    tmp_path: Path, engine: FakeEngine
) -> None:
    graded, rated = judged(["Who?"]), rating_request()
    graded.judge = rated.judge = "another"
    async with court(tmp_path, engine, says("yes")) as place:
        for error in (await refusal(place.evaluate(graded)), await refusal(place.rate(rated))):
            assert isinstance(error, Conflict) and error.field == "judge"
            assert "'another'" in error.message and repr(MODEL) in error.message
        assert engine.evaluated == [] and not place.server.calls
        graded.judge = MODEL
        assert (await read_all(place.evaluate(graded)))[-1].result.ungraded == 0


async def test_who_judges_is_said_once_a_verdict_has_proved_it_and_proved_anew_each_time(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, [says("yes"), fails(401)]) as place:
        described = await place.stub.DescribeJudge(evaluator_pb2.DescribeJudgeRequest())
        assert described.model == MODEL and len(place.server.calls) == 1
        error = await described_as_error(place.stub)
    assert (type(error), error.field) == (PreconditionFailed, "judge_api_key_file")


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (fails(401), "judge_api_key_file"),
        (fails(404), "judge_base_url"),
        (says("yes", model="another-model"), "judge_model"),
        (says("perhaps"), "judge_model"),
        (fails(400), ""),
    ],
)
async def test_a_judge_that_cannot_judge_is_found_by_the_option_that_is_at_fault(
    answer: Reply, field: str, tmp_path: Path, engine: FakeEngine
) -> None:
    async with court(tmp_path, engine, answer) as place:
        error = await described_as_error(place.stub)
    assert (type(error), error.field) == (PreconditionFailed, field) and error.remedy


def test_a_key_that_cannot_be_read_is_refused_by_its_option(tmp_path: Path) -> None:
    endpoint = EndpointSettings(
        base_url="http://127.0.0.1:9/v1", model="m", api_key_file=str(tmp_path / "absent")
    )
    with pytest.raises(InvalidInput) as refused:
        open_judge(JudgeSettings(endpoint=endpoint))
    assert refused.value.field == "judge_api_key_file"


async def test_edits_are_rated_without_a_question_and_each_once(
    tmp_path: Path, engine: FakeEngine
) -> None:
    def answer(call: Call) -> Reply:
        notes = json.loads(call.asked)["notes"]
        return says(MARKS) if "flows" in notes else says("I like them")

    async with court(tmp_path, engine, answer) as place:
        messages = [(await read_all(place.rate(rating_request())))[-1] for _ in range(2)]
        asked = [json.loads(call.asked) for call in place.server.calls]
    for message in messages:
        first, second = message.result.ratings
        assert (first.edit_id, OUTCOME_FROM_WIRE[first.outcome], first.rating) == (
            "0",
            Outcome.OK,
            0.75,
        )
        assert (second.edit_id, OUTCOME_FROM_WIRE[second.outcome]) == ("1", Outcome.UNGRADED)
    assert [set(one) for one in asked] == [{"title", "passage", "notes"}] * 3
    assert engine.evaluated == []


async def test_every_bound_of_a_rating_is_refused_by_its_field(
    tmp_path: Path, engine: FakeEngine
) -> None:
    edit = evaluator_pb2.EditToRate
    changes: list[tuple[str, dict[str, object]]] = [
        ("request_id", {"request_id": ""}),
        ("run", {"run": "Run"}),
        ("title", {"title": "x" * 1001}),
        ("text", {"text": " "}),
        ("text", {"text": "x" * 70_000}),
        ("edits", {"edits": []}),
        ("edits", {"edits": [edit(edit_id=str(n)) for n in range(1025)]}),
        ("edits[1].edit_id", {"edits": [edit(edit_id="a"), edit(edit_id="a")]}),
        ("edits[0].edit_id", {"edits": [edit(text="a")]}),
    ]
    async with court(tmp_path, engine, says(MARKS)) as place:
        await each_is_refused_by_its_field(place.rate, rating_request, changes)
        assert place.server.calls == []


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("yes", 1.0),
        ("No.", 0.0),
        (" **Yes**, it says the same", 1.0),
        ("No: there is no such river", 0.0),
        ("yes or no", None),
        ("Nothing", None),
        ("It is right: yes", None),
        ("", None),
    ],
)
def test_a_verdict_is_one_word_that_comes_first(text: str, verdict: float | None) -> None:
    if verdict is not None:
        assert read_verdict(text) == verdict
        return
    with pytest.raises(PreconditionFailed):
        read_verdict(text)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (MARKS, 0.75),
        (f"```json\n{MARKS}\n```", 0.75),
        ("correct: 1, complete: 1, plain: 1, varied: 1", 0.0),
        ('{"correct": 5, "complete": 5, "plain": 5}', None),
        ('{"correct": 6, "complete": 5, "plain": 5, "varied": 5}', None),
        ('{"correct": 4.5, "complete": 5, "plain": 5, "varied": 5}', None),
        (f"{MARKS} {MARKS}", None),
        ("", None),
    ],
)
def test_a_rating_is_four_marks_of_one_to_five(text: str, rating: float | None) -> None:
    if rating is not None:
        assert read_rating(text) == rating
        return
    with pytest.raises(PreconditionFailed):
        read_rating(text)
