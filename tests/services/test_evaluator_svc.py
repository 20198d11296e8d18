"""EvaluatorService.

What it refuses, that a missing grade is never a zero, and that an adapter which changes nothing has
no score.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import structlog
from eventually import until
from fake_engine import FakeEngine
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    each_is_refused_by_its_field,
    evaluation_request,
    fake_cache,
    policy,
    publish,
    read_all,
    refusal,
    serving,
)

import evaluator_svc.service
from evaluator_svc.service import register
from seal.artifacts import ArtifactStore
from seal.domains.knowledge import KnowledgeDomain
from seal.engine import EvaluationRequest
from seal.errors import InvalidInput, NotFound, UnfitItem
from seal.limits import MAX_ASKS
from seal.outcomes import Outcome
from seal.records import AdapterReference
from seal.rpc.convert import adapter_message, evaluation_record
from seal.v1 import common_pb2, evaluator_pb2, evaluator_pb2_grpc


@dataclass
class Evaluator:
    """A running evaluator and what it stands on."""

    stub: evaluator_pb2_grpc.EvaluatorServiceAsyncStub
    engine: FakeEngine
    store: ArtifactStore

    def evaluate(self, request: evaluator_pb2.EvaluateRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.Evaluate(request, timeout=DEADLINE_SECONDS)

    async def result(
        self, request: evaluator_pb2.EvaluateRequest
    ) -> evaluator_pb2.EvaluationResult:
        return (await read_all(self.evaluate(request)))[-1].result


Start = Callable[[], AbstractAsyncContextManager[Evaluator]]


@pytest.fixture
def start(tmp_path: Path, engine: FakeEngine) -> Start:
    """Starts an evaluator."""

    @asynccontextmanager
    async def start_evaluator() -> AsyncIterator[Evaluator]:
        store = ArtifactStore(f"file://{tmp_path}/artifacts")
        adapters = fake_cache(store, engine)
        async with serving(
            functools.partial(register, engine=engine, adapters=adapters, pace=FAST)
        ) as channel:
            yield Evaluator(evaluator_pb2_grpc.EvaluatorServiceStub(channel), engine, store)

    return start_evaluator


def _query(
    query_id: str = "q1", question: str = "Who?", answer: str = "Ada", context: str = ""
) -> evaluator_pb2.Query:
    return evaluator_pb2.Query(
        query_id=query_id, question=question, answers=[answer], context=context
    )


BAD_REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("request_id", {"request_id": ""}),
    ("run", {"run": "Run"}),
    ("policy.base_model", {"policy": common_pb2.PolicyRef()}),
    ("adapter.sha256", {"adapter": common_pb2.AdapterRef(path="x", sha256="A" * 64)}),
    ("domain", {"domain": "chess"}),
    ("question_format", {"question_format": "riddle"}),
    ("queries", {"queries": []}),
    ("queries", {"queries": [_query(str(index)) for index in range(4097)]}),
    ("queries[1].query_id", {"queries": [_query("same"), _query("same")]}),
    ("queries[0].query_id", {"queries": [_query("")]}),
    ("queries[0].question", {"queries": [_query(question=" ")]}),
    ("queries[0].question", {"queries": [_query(question="x" * 4001)]}),
    ("queries[1].answers[0]", {"queries": [_query("a"), _query("b", answer="")]}),
    ("queries[0].answers[0]", {"queries": [_query(answer="x" * 4001)]}),
    ("queries[0].answers", {"queries": [evaluator_pb2.Query(query_id="q", question="Who?")]}),
    (
        "queries[0].answers",
        {"queries": [evaluator_pb2.Query(query_id="q", question="Who?", answers=["Ada"] * 257)]},
    ),
    ("queries[0].context", {"queries": [_query(context="x" * 70_000)]}),
    ("grader", {"grader": evaluator_pb2.GRADER_UNSPECIFIED}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": 100_000}),
    ("votes", {"votes": 2}),
]


async def test_every_bound_is_refused_by_its_field_with_a_remedy_before_the_engine_sees_it(
    start: Start,
) -> None:
    async with start() as evaluator:
        await each_is_refused_by_its_field(evaluator.evaluate, evaluation_request, BAD_REQUESTS)
    assert evaluator.engine.evaluated == []


async def test_a_missing_gold_answer_is_refused_with_its_field_and_the_remedy(start: Start) -> None:
    async with start() as evaluator:
        error = await refusal(
            evaluator.evaluate(
                evaluation_request(queries=[_query("a"), _query("b"), _query("c", answer="  ")])
            )
        )
    assert error.field == "queries[2].answers[0]"
    assert "gold answer" in error.remedy


async def test_an_adapter_that_leaves_the_logits_as_they_are_is_inert_and_has_no_score(
    start: Start,
) -> None:
    async with start() as evaluator:
        evaluator.engine.logit_difference = 0.0
        adapter = adapter_message(publish(evaluator.store))
        request = evaluation_request(adapter=adapter)
        result = await evaluator.result(request)
    _check_without_score(request, result, Outcome.INERT)


@pytest.mark.parametrize("difference", [float("nan"), float("inf")])
async def test_an_adapter_that_makes_the_logits_no_numbers_has_diverged_and_has_no_score(
    start: Start, difference: float
) -> None:
    async with start() as evaluator:
        evaluator.engine.logit_difference = difference
        adapter = adapter_message(publish(evaluator.store))
        request = evaluation_request(adapter=adapter)
        result = await evaluator.result(request)
    _check_without_score(request, result, Outcome.DIVERGED)
    assert result.max_logit_difference == 0.0


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.DIVERGED, Outcome.TOO_LONG])
async def test_an_evaluation_that_fails_by_its_own_fault_has_that_outcome(
    start: Start, outcome: Outcome
) -> None:
    def unfit(request: EvaluationRequest) -> None:
        raise UnfitItem("cannot be asked", outcome=outcome)

    async with start() as evaluator:
        evaluator.engine.fault = unfit
        result = await evaluator.result(evaluation_request())
    _check_without_score(evaluation_request(), result, outcome)


async def test_a_query_that_is_too_long_has_an_outcome_and_the_others_are_graded(
    start: Start,
) -> None:
    def short(request: EvaluationRequest) -> None:
        for index, prompt in enumerate(request.prompts):
            if "endless" in repr(prompt):
                raise UnfitItem("too long", outcome=Outcome.TOO_LONG, places=[index])

    request = evaluation_request(
        queries=[
            _query("a", question="endless?"),
            _query("b", answer="Ada"),
            _query("c", question="also endless?"),
            _query("d", answer="Bob"),
        ]
    )
    async with start() as evaluator:
        evaluator.engine.check = short
        result = await evaluator.result(request)
    assert (result.outcome, result.reward, result.ungraded) == (common_pb2.OUTCOME_OK, 1.0, 2)
    assert [answer.query_id for answer in result.answers] == ["a", "b", "c", "d"]
    assert [answer.outcome for answer in result.answers] == [
        common_pb2.OUTCOME_TOO_LONG,
        common_pb2.OUTCOME_OK,
        common_pb2.OUTCOME_TOO_LONG,
        common_pb2.OUTCOME_OK,
    ]
    record = evaluation_record(request, result)
    assert (record.reward, record.answers[0].score) == (1.0, None)


async def test_what_leaves_nothing_to_ask_is_the_outcome_whatever_was_left_out_before(
    start: Start,
) -> None:
    def check(request: EvaluationRequest) -> None:
        if len(request.prompts) == 3:
            raise UnfitItem("too long", outcome=Outcome.TOO_LONG, places=[0])

    def diverges(request: EvaluationRequest) -> None:
        raise UnfitItem("no numbers", outcome=Outcome.DIVERGED)

    async with start() as evaluator:
        evaluator.engine.check, evaluator.engine.fault = check, diverges
        queries = [_query("a"), _query("b"), _query("c")]
        result = await evaluator.result(evaluation_request(queries=queries))
    too_long, diverged = common_pb2.OUTCOME_TOO_LONG, common_pb2.OUTCOME_DIVERGED
    assert (result.outcome, result.ungraded) == (diverged, 3)
    assert [answer.outcome for answer in result.answers] == [too_long, diverged, diverged]


@pytest.mark.parametrize(
    "step", ["parse_evaluation", "asks_of", "_engine_request", "joined", "grade_all"]
)
async def test_others_are_answered_while_many_queries_are_checked_asked_or_graded(
    start: Start, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, others_answered = threading.Event(), threading.Event()
    real = getattr(evaluator_svc.service, step)

    def slow(*given: object, **named: object) -> object:
        at_work.set()
        assert others_answered.wait(timeout=15), "the event loop does it"
        return real(*given, **named)

    monkeypatch.setattr(evaluator_svc.service, step, slow)
    async with start() as evaluator:
        evaluating = asyncio.create_task(evaluator.result(evaluation_request()))
        await until(at_work.is_set)
        await evaluator.stub.DescribeEvaluator(
            evaluator_pb2.DescribeEvaluatorRequest(policy=policy()), timeout=DEADLINE_SECONDS
        )
        others_answered.set()
        assert (await evaluating).outcome == common_pb2.OUTCOME_OK


def _check_without_score(
    request: evaluator_pb2.EvaluateRequest, result: evaluator_pb2.EvaluationResult, outcome: Outcome
) -> None:
    record = evaluation_record(request, result)
    assert (record.outcome, record.reward) == (outcome, None)
    assert {(answer.outcome, answer.score) for answer in record.answers} == {(outcome, None)}
    assert len(record.answers) == record.ungraded == len(request.queries)


@pytest.mark.parametrize("field", ["adapter", "policy.adapter"])
async def test_an_adapter_for_another_base_is_refused_naming_both(start: Start, field: str) -> None:
    async with start() as evaluator:
        foreign = publish(evaluator.store, base_model="llama-7b")
        changes: dict[str, object] = (
            {"adapter": adapter_message(foreign)}
            if field == "adapter"
            else {"policy": policy(foreign)}
        )
        error = await refusal(evaluator.evaluate(evaluation_request(**changes)))
    assert isinstance(error, InvalidInput)
    assert error.field == field
    assert "llama-7b" in error.message
    assert "tiny" in error.message
    assert evaluator.engine.evaluated == []


async def test_another_base_model_is_refused_naming_both(start: Start) -> None:
    async with start() as evaluator:
        error = await refusal(
            evaluator.evaluate(evaluation_request(policy=policy(base_model="llama-7b")))
        )
    assert (type(error), error.field) == (InvalidInput, "policy.base_model")
    assert "llama-7b" in error.message
    assert "tiny" in error.message


async def test_an_adapter_that_is_not_in_the_store_is_not_found_and_found_once_it_is_there(
    start: Start, tmp_path: Path
) -> None:
    async with start() as evaluator:
        reference = publish(evaluator.store)
        directory = tmp_path / "artifacts" / "run" / "adapters" / reference.sha256
        directory.rename(tmp_path / "aside")
        request = evaluation_request(adapter=adapter_message(reference))
        assert isinstance(await refusal(evaluator.evaluate(request)), NotFound)
        (tmp_path / "aside").rename(directory)
        assert (await evaluator.result(request)).outcome == common_pb2.OUTCOME_OK


async def test_an_altered_adapter_file_is_refused_by_its_name(start: Start, tmp_path: Path) -> None:
    async with start() as evaluator:
        reference = publish(evaluator.store)
        file = (
            tmp_path
            / "artifacts"
            / "run"
            / "adapters"
            / reference.sha256
            / "adapter_model.safetensors"
        )
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        error = await refusal(
            evaluator.evaluate(evaluation_request(adapter=adapter_message(reference)))
        )
    assert "adapter_model.safetensors" in error.message


async def test_what_could_not_be_graded_is_counted_and_not_averaged(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade = KnowledgeDomain.grade

    def judge_down_for_the_second(
        self: KnowledgeDomain,
        grader: str,
        answer: str,
        golds: tuple[str, ...],
        logprob: float | None,
    ) -> float | None:
        return None if golds == ("Mount Oss",) else grade(self, grader, answer, golds, logprob)  # type: ignore[arg-type]

    monkeypatch.setattr(KnowledgeDomain, "grade", judge_down_for_the_second)
    async with start() as evaluator:
        result = await evaluator.result(evaluation_request())
        both = await evaluator.result(evaluation_request(queries=[_query("a", answer="Mount Oss")]))
    assert [answer.outcome for answer in result.answers] == [
        common_pb2.OUTCOME_OK,
        common_pb2.OUTCOME_UNGRADED,
    ]
    assert (result.outcome, result.reward, result.ungraded) == (common_pb2.OUTCOME_OK, 1.0, 1)
    assert (both.outcome, both.ungraded) == (common_pb2.OUTCOME_UNGRADED, 1)
    assert evaluation_record(evaluation_request(), result).answers[1].score is None
    assert (
        evaluation_record(
            evaluation_request(queries=[_query("a", answer="Mount Oss")]), both
        ).reward
        is None
    )


async def test_every_grade_is_filled_and_the_score_is_the_chosen_one(start: Start) -> None:
    async with start() as evaluator:
        evaluator.engine.answer = lambda request, index: ("It is a river of ice.", "nowhere")[index]
        results = {
            grader: await evaluator.result(evaluation_request(grader=grader))
            for grader in (
                evaluator_pb2.GRADER_EXACT,
                evaluator_pb2.GRADER_CONTAINS,
                evaluator_pb2.GRADER_F1,
                evaluator_pb2.GRADER_LOGPROB,
            )
        }
    for result in results.values():
        right, wrong = result.answers
        assert (right.measures["exact"], right.measures["contains"], right.logprob) == (
            0.0,
            1.0,
            -0.5,
        )
        assert 0.0 < right.measures["f1"] < 1.0
        assert (wrong.measures["exact"], wrong.measures["contains"], wrong.measures["f1"]) == (
            0.0,
            0.0,
            0.0,
        )
        assert result.reward == pytest.approx(sum(answer.score for answer in result.answers) / 2)
    firsts = [result.answers[0] for result in results.values()]
    assert [answer.score for answer in firsts] == [
        firsts[0].measures["exact"],
        firsts[0].measures["contains"],
        firsts[0].measures["f1"],
        firsts[0].logprob,
    ]


async def test_of_several_gold_answers_the_best_counts_and_the_first_is_scored_by_log_probability(
    start: Start,
) -> None:
    query = evaluator_pb2.Query(
        query_id="q", question="Which river?", answers=["the river Veldra", "Veldra"]
    )
    request = evaluation_request(queries=[query], grader=evaluator_pb2.GRADER_EXACT)
    async with start() as evaluator:
        evaluator.engine.answer = lambda request, index: "Veldra."
        result = await evaluator.result(request)
    (answer,) = result.answers
    assert (
        answer.measures["exact"],
        answer.measures["contains"],
        answer.measures["f1"],
        result.reward,
    ) == (1.0, 1.0, 1.0, 1.0)
    assert evaluator.engine.evaluated[0].golds == (" the river Veldra",)
    (record,) = evaluation_record(request, result).answers
    assert record.golds == ("the river Veldra", "Veldra")


async def test_without_an_adapter_the_policy_alone_is_asked_and_no_proof_is_needed(
    start: Start,
) -> None:
    async with start() as evaluator:
        reference = publish(evaluator.store)
        result = await evaluator.result(evaluation_request(policy=policy(reference)))
    assert (result.outcome, result.max_logit_difference) == (common_pb2.OUTCOME_OK, 0.0)
    asked = evaluator.engine.evaluated[0]
    assert asked.adapter is None
    assert asked.policy is not None


async def test_an_open_book_question_shows_its_passage_and_a_plain_one_hides_the_gold_answer(
    start: Start,
) -> None:
    async with start() as evaluator:
        await evaluator.result(
            evaluation_request(
                queries=[
                    _query("a", answer="Zyx"),
                    _query("b", context="The Veldra is long.", answer="Zyx"),
                ]
            )
        )
    closed, opened = (prompt.text for prompt in evaluator.engine.evaluated[0].prompts)
    assert "The Veldra is long." in opened
    assert "The Veldra is long." not in closed
    assert "Zyx" not in closed + opened
    assert all("Zyx" in gold for gold in evaluator.engine.evaluated[0].golds)


async def test_progress_counts_queries_and_ends_with_the_result(start: Start) -> None:
    async with start() as evaluator:
        messages = await read_all(evaluator.evaluate(evaluation_request()))
    progress = [message.progress for message in messages if message.HasField("progress")]
    assert [message.HasField("result") for message in messages] == [False] * len(progress) + [True]
    assert all(news.queries_total == 2 for news in progress)
    assert progress[-1].queries_done == 2


async def test_a_cancelled_call_cancels_the_work_in_the_engine(start: Start) -> None:
    async with start() as evaluator:
        evaluator.engine.gate.clear()
        call = evaluator.evaluate(evaluation_request())
        await anext(aiter(call))
        call.cancel()
        await until(lambda: evaluator.engine.cancelled_tasks == 1)
        evaluator.engine.gate.set()
        assert (await evaluator.result(evaluation_request())).outcome == common_pb2.OUTCOME_OK
    assert len(evaluator.engine.evaluated) == 1


async def test_a_passed_deadline_cancels_the_work_in_the_engine(start: Start) -> None:
    async with start() as evaluator:
        evaluator.engine.gate.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in evaluator.stub.Evaluate(evaluation_request(), timeout=2.0):
                pass
        await until(lambda: evaluator.engine.cancelled_tasks == 1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_adapter_is_read_once_for_many_calls(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = ArtifactStore.fetch_directory

    def counting(self: ArtifactStore, reference: AdapterReference) -> AbstractContextManager[Path]:
        fetched.append(reference.sha256)
        return fetch(self, reference)

    monkeypatch.setattr(ArtifactStore, "fetch_directory", counting)
    async with start() as evaluator:
        adapter = adapter_message(publish(evaluator.store))
        calls = [
            evaluator.result(evaluation_request(request_id=f"e{index}", adapter=adapter))
            for index in range(4)
        ]
        await asyncio.gather(*calls)
    assert len(fetched) == 1


async def test_logs_hold_no_question_no_answer_and_no_passage(start: Start) -> None:
    query = _query(
        question="What is the secret?", answer="secret word", context="A secret passage."
    )
    with structlog.testing.capture_logs() as logs:
        async with start() as evaluator:
            await evaluator.result(evaluation_request(queries=[query]))
            await refusal(evaluator.evaluate(evaluation_request(queries=[query, query])))
    assert any(line.get("request_id") == "evaluation-1" for line in logs)
    assert "secret" not in str(logs)


SHOWN = '[{"input":[[1,2,3]],"output":[[1,2,3]]}]'
"""A rule that changes nothing, so that its answer in any view is the view's own input."""


def _puzzle(query_id: str, grid: str) -> evaluator_pb2.Query:
    return _query(query_id, question=grid, answer=grid, context=SHOWN)


def _puzzles(**changes: object) -> evaluator_pb2.EvaluateRequest:
    """Puzzles asked in several ways."""
    values: dict[str, object] = {
        "domain": "arc",
        "question_format": "digits",
        "grader": evaluator_pb2.GRADER_GRID,
        "queries": [_puzzle("a", "[[4,5,6]]"), _puzzle("b", "[[7,8]]")],
    }
    return evaluation_request(**(values | changes))


def _asked_grid(request: EvaluationRequest, index: int) -> str:
    """The input that a prompt asks for the output of."""
    return request.prompts[index].text.rsplit("input\n", 1)[1].removesuffix("\noutput\n")


async def test_what_most_ways_of_asking_agree_on_is_graded_and_all_of_them_are_paid(
    start: Start,
) -> None:
    async with start() as evaluator:
        evaluator.engine.answer = lambda request, index: (
            "000" if index in (0, 3, 4) else _asked_grid(request, index)
        )
        result = await evaluator.result(_puzzles(votes=3))
        (request,) = evaluator.engine.evaluated
    assert [answer.answer for answer in result.answers] == ["[[4,5,6]]", "[[0,0,0]]"]
    assert [answer.query_id for answer in result.answers] == ["a", "b"]
    assert result.reward == 0.5
    assert len(request.prompts) == len(request.golds) == 6


async def test_more_prompts_than_an_evaluation_may_have_are_refused_before_the_engine_is_asked(
    start: Start,
) -> None:
    queries = [_puzzle(f"q{number}", "[[1]]") for number in range(MAX_ASKS // 64 + 1)]
    async with start() as evaluator:
        error = await refusal(evaluator.evaluate(_puzzles(queries=queries, votes=64)))
        assert isinstance(error, InvalidInput) and error.field == "votes" and error.remedy
        assert evaluator.engine.evaluated == []
        result = await evaluator.result(_puzzles(queries=queries[:2], votes=64))
        assert result.outcome == common_pb2.OUTCOME_OK


async def test_of_a_query_with_a_way_that_is_too_long_the_other_ways_vote(start: Start) -> None:
    def check(request: EvaluationRequest) -> None:
        if len(request.prompts) == 4:  # the query itself, and all ways of the other one
            raise UnfitItem("long", outcome=Outcome.TOO_LONG, places=(0, 2, 3))

    async with start() as evaluator:
        evaluator.engine.check = check
        evaluator.engine.answer = _asked_grid
        result = await evaluator.result(_puzzles(votes=2))
    assert [answer.answer for answer in result.answers] == ["[[4,5,6]]", ""]
    assert [answer.outcome for answer in result.answers] == [
        common_pb2.OUTCOME_OK,
        common_pb2.OUTCOME_TOO_LONG,
    ]
    assert (result.reward, result.ungraded) == (1.0, 1)
