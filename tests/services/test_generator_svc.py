"""GeneratorService.

What it refuses, the order of what it gives, and that a left call leaves no work behind.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
import structlog
from edits_in_parts import START, use_parts
from eventually import until
from fake_engine import FakeEngine, save_fake_adapter
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    each_is_refused_by_its_field,
    evaluation_request,
    fake_cache,
    generation_request,
    policy,
    publish,
    read_all,
    refusal,
    serving,
    training_request,
)

import evaluator_svc.service
import generator_svc.service
import trainer_svc.service
from generator_svc.plan import PlannedContext, cut_into_batches
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import PartPrompt
from seal.engine import GenerationRequest, GenerationResult
from seal.errors import InvalidInput, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.prompts import Prompt
from seal.restem.seeds import derive_seed
from seal.rpc.convert import chat_messages
from seal.v1 import (
    common_pb2,
    evaluator_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    trainer_pb2_grpc,
)
from trainer_svc.trainings import Trainings


@dataclass
class Generator:
    """A running generator and what it stands on."""

    stub: generator_pb2_grpc.GeneratorServiceAsyncStub
    engine: FakeEngine
    store: ArtifactStore

    def generate(self, request: generator_pb2.GenerateEditsRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.GenerateEdits(request, timeout=DEADLINE_SECONDS)

    async def edits(
        self, request: generator_pb2.GenerateEditsRequest
    ) -> list[generator_pb2.ContextEdits]:
        messages = await read_all(self.generate(request))
        return [message.context_edits for message in messages if message.HasField("context_edits")]


Start = Callable[[], AbstractAsyncContextManager[Generator]]


@pytest.fixture
def start(tmp_path: Path, engine: FakeEngine) -> Start:
    """Starts a generator."""

    @asynccontextmanager
    async def start_generator() -> AsyncIterator[Generator]:
        store = ArtifactStore(f"file://{tmp_path}/artifacts")
        adapters = fake_cache(store, engine)
        registration = functools.partial(
            generator_svc.service.register, engine=engine, adapters=adapters, pace=FAST
        )
        async with serving(registration) as channel:
            yield Generator(generator_pb2_grpc.GeneratorServiceStub(channel), engine, store)

    return start_generator


def _context(
    context_id: str = "c1", text: str = "Veldra is a river.", seeds: tuple[int, ...] = (1, 2)
) -> generator_pb2.EditContext:
    return generator_pb2.EditContext(context_id=context_id, title="Veldra", text=text, seeds=seeds)


def _sampling(
    temperature: float = 0.7, top_p: float = 0.95, max_tokens: int = 16
) -> generator_pb2.Sampling:
    return generator_pb2.Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)


BAD_REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("request_id", {"request_id": "line\nbreak"}),
    ("run", {"run": "a" * 41}),
    ("policy.base_model", {"policy": common_pb2.PolicyRef()}),
    (
        "policy.adapter.path",
        {
            "policy": common_pb2.PolicyRef(
                base_model="tiny", adapter=common_pb2.AdapterRef(sha256="a" * 64)
            )
        },
    ),
    ("domain", {"domain": ""}),
    ("prompt.family", {"prompt": generator_pb2.EditPrompt(family="poem", format="chat")}),
    ("prompt.family", {"prompt": generator_pb2.EditPrompt(family="none", format="base")}),
    ("prompt.format", {"prompt": generator_pb2.EditPrompt(family="self-qa", format="html")}),
    ("sampling.temperature", {"sampling": _sampling(temperature=-0.1)}),
    ("sampling.temperature", {"sampling": _sampling(temperature=float("nan"))}),
    ("sampling.top_p", {"sampling": _sampling(top_p=0.0)}),
    ("sampling.top_p", {"sampling": _sampling(top_p=1.01)}),
    ("sampling.max_tokens", {"sampling": _sampling(max_tokens=0)}),
    ("contexts", {"contexts": []}),
    ("contexts", {"contexts": [_context(str(index)) for index in range(1025)]}),
    (
        "contexts",
        {"contexts": [_context(str(index), seeds=tuple(range(5000))) for index in range(2)]},
    ),
    ("contexts[1].context_id", {"contexts": [_context("same"), _context("same")]}),
    ("contexts[0].context_id", {"contexts": [_context("")]}),
    ("contexts[0].text", {"contexts": [_context(text="  ")]}),
    ("contexts[0].text", {"contexts": [_context(text="x" * 70_000)]}),
    ("contexts[0].seeds", {"contexts": [_context(seeds=())]}),
    ("contexts[0].seeds[1]", {"contexts": [_context(seeds=(1, 2**63))]}),
]


async def test_every_bound_is_refused_by_its_field_with_a_remedy_before_the_engine_sees_it(
    start: Start,
) -> None:
    async with start() as generator:
        await each_is_refused_by_its_field(generator.generate, generation_request, BAD_REQUESTS)
    assert generator.engine.generated == []


async def test_a_policy_for_another_base_is_refused_naming_both(start: Start) -> None:
    async with start() as generator:
        foreign = publish(generator.store, base_model="llama-7b")
        errors = [
            await refusal(generator.generate(generation_request(policy=policy(foreign)))),
            await refusal(
                generator.generate(generation_request(policy=policy(base_model="llama-7b")))
            ),
        ]
    assert [error.field for error in errors] == ["policy.adapter", "policy.base_model"]
    assert all(
        isinstance(error, InvalidInput) and "llama-7b" in error.message and "tiny" in error.message
        for error in errors
    )


async def test_a_cancelled_call_cancels_the_work_in_the_engine(start: Start) -> None:
    async with start() as generator:
        generator.engine.gate.clear()
        call = generator.generate(generation_request())
        await anext(aiter(call))
        call.cancel()
        await until(lambda: generator.engine.cancelled_tasks == 1)
    assert generator.engine.generated == []


async def test_a_call_left_between_two_parts_asks_the_engine_for_no_further_part(
    start: Start,
) -> None:
    contexts = [_context(f"c{index}", seeds=(1, 2, 3, 4)) for index in range(50)]
    async with start() as generator:
        call = generator.generate(generation_request(contexts=contexts))
        while not (await anext(aiter(call))).HasField("context_edits"):
            pass
        generator.engine.gate.clear()
        call.cancel()
        await asyncio.sleep(0.2)
        begun = len(generator.engine.generated)
        generator.engine.gate.set()
        await asyncio.sleep(0.2)
    assert len(generator.engine.generated) == begun < 50


async def test_an_engine_that_drops_the_request_gives_an_error_that_is_worth_a_retry(
    start: Start,
) -> None:
    async with start() as generator:
        generator.engine.gate.clear()
        call = generator.generate(generation_request())
        await anext(aiter(call))
        generator.engine.drop_all()
        error = await refusal(call)
    assert isinstance(error, Transient)


async def test_contexts_come_in_the_order_of_the_request_with_one_edit_per_seed(
    start: Start,
) -> None:
    contexts = [
        _context(f"c{9 - index}", seeds=tuple(range(index, index + 1 + index % 3)))
        for index in range(9)
    ]
    async with start() as generator:
        edits = await generator.edits(generation_request(contexts=contexts))
    assert [given.context_id for given in edits] == [context.context_id for context in contexts]
    assert [[edit.seed for edit in given.edits] for given in edits] == [
        list(context.seeds) for context in contexts
    ]
    parts = [part for given in edits for edit in given.edits for part in edit.parts]
    assert all(part.tokens == 5 and not part.truncated for part in parts)
    assert all(given.engine_seconds == 0.25 for given in edits)


async def test_the_engine_samples_only_so_many_rows_at_once_and_first_contexts_are_out_early(
    start: Start,
) -> None:
    contexts = [_context(f"c{index}") for index in range(6)]
    async with start() as generator:
        messages = await read_all(generator.generate(generation_request(contexts=contexts)))
    assert [sum(map(len, request.seeds)) for request in generator.engine.generated] == [4, 4, 4]
    kinds = [message.WhichOneof("event") for message in messages]
    assert "progress" in kinds[kinds.index("context_edits") :]


@pytest.mark.parametrize("named", [True, False])
async def test_a_context_at_fault_has_an_outcome_and_the_others_get_their_edits(
    start: Start, named: bool
) -> None:
    def short(request: GenerationRequest) -> None:
        for index, prompt in enumerate(request.prompts):
            if "endless" in repr(prompt):
                places = [index] if named else []
                raise UnfitItem("too long", outcome=Outcome.TOO_LONG, places=places)

    contexts = [
        _context(f"c{index}", text="endless" if index in (1, 2, 4) else "short")
        for index in range(6)
    ]
    async with start() as generator:
        generator.engine.check = short
        edits = await generator.edits(generation_request(contexts=contexts))
    assert [given.context_id for given in edits] == [context.context_id for context in contexts]
    too_long, ok = common_pb2.OUTCOME_TOO_LONG, common_pb2.OUTCOME_OK
    assert [given.outcome for given in edits] == [ok, too_long, too_long, ok, too_long, ok]
    assert [len(given.edits) for given in edits] == [2, 0, 0, 2, 0, 2]
    assert [len(given.parts) for given in edits] == [1, 0, 0, 1, 0, 1]


async def test_a_generation_that_meets_a_full_queue_waits(start: Start) -> None:
    async with start() as generator:
        generator.engine.gate.clear()
        calls = [generator.edits(generation_request(request_id=f"g{index}")) for index in range(6)]
        waiting = [asyncio.create_task(call) for call in calls]
        await until(lambda: generator.engine.waiting == 4)
        generator.engine.gate.set()
        assert all(len(edits) == 1 for edits in await asyncio.gather(*waiting))


async def test_progress_rises_over_the_parts_to_the_total(start: Start) -> None:
    contexts = [_context(f"c{index}") for index in range(6)]
    async with start() as generator:
        generator.engine.gate.clear()
        call = generator.generate(generation_request(contexts=contexts))
        queued = await anext(aiter(call))
        generator.engine.gate.set()
        messages = [queued, *await read_all(call)]
    progress = [message.progress for message in messages if message.HasField("progress")]
    assert progress[0].state == common_pb2.TASK_STATE_QUEUED
    assert [news.edits_done for news in progress] == sorted(news.edits_done for news in progress)
    assert (progress[-1].edits_done, progress[-1].edits_total, progress[-1].tokens) == (12, 12, 60)


async def test_a_retry_gives_the_same_edits(start: Start) -> None:
    async with start() as generator:
        assert await generator.edits(generation_request()) == await generator.edits(
            generation_request()
        )


async def test_the_domains_prompt_is_sampled_and_given_back_for_the_m_step(
    start: Start,
) -> None:
    async with start() as generator:
        edits = await generator.edits(generation_request())
    (part,) = get_domain("knowledge").edit_prompts(
        "Veldra", "Veldra is a river.", "self-qa", "chat"
    )
    expected = part.prompt
    asked = generator.engine.generated[0]
    assert asked.prompts == (expected,)
    (part,) = edits[0].parts
    assert (part.prompt, part.start) == (expected.text, "")
    assert chat_messages(part.messages) == expected.messages != ()
    assert asked.stop == expected.stop
    assert (asked.temperature, asked.top_p, asked.max_tokens) == (0.7, 0.95, 32)


async def test_the_policy_adapter_writes_the_edits(start: Start) -> None:
    async with start() as generator:
        reference = publish(generator.store)
        edits = await generator.edits(generation_request(policy=policy(reference)))
    assert edits[0].edits[0].parts[0].text.startswith("adapted")


async def test_logs_hold_no_document_text(start: Start) -> None:
    contexts = [
        generator_pb2.EditContext(
            context_id="c1", title="secret title", text="secret text", seeds=[1]
        )
    ]
    with structlog.testing.capture_logs() as logs:
        async with start() as generator:
            await generator.edits(generation_request(contexts=contexts))
            await refusal(generator.generate(generation_request(contexts=contexts * 2)))
    assert any(line.get("request_id") == "generation-1" for line in logs)
    assert "secret" not in str(logs)


async def test_all_three_services_register_on_one_server_and_share_engine_store_and_adapters(
    tmp_path: Path, engine: FakeEngine
) -> None:
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    adapters = fake_cache(store, engine)
    trainings = Trainings(
        engine=engine, store=store, adapters=adapters, save_adapter=save_fake_adapter
    )  # type: ignore[arg-type]
    shared = {"adapters": adapters, "pace": FAST}
    registrations = [
        functools.partial(generator_svc.service.register, engine=engine, **shared),  # type: ignore[arg-type]
        functools.partial(trainer_svc.service.register, trainings=trainings, **shared),  # type: ignore[arg-type]
        functools.partial(evaluator_svc.service.register, engine=engine, **shared),  # type: ignore[arg-type]
    ]
    async with serving(*registrations) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in (
            "seal.v1.GeneratorService",
            "seal.v1.TrainerService",
            "seal.v1.EvaluatorService",
        ):
            ready = await health.Check(
                health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_SECONDS
            )
            assert ready.status == health_pb2.HealthCheckResponse.SERVING
        generated = await read_all(
            generator_pb2_grpc.GeneratorServiceStub(channel).GenerateEdits(
                generation_request(), timeout=DEADLINE_SECONDS
            )
        )
        trained = await read_all(
            trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
                training_request(), timeout=DEADLINE_SECONDS
            )
        )
        asked = evaluation_request(adapter=trained[-1].result.adapter)
        evaluated = await read_all(
            evaluator_pb2_grpc.EvaluatorServiceStub(channel).Evaluate(
                asked, timeout=DEADLINE_SECONDS
            )
        )
        await trainings.close(grace_seconds=1.0)
    assert generated[-1].HasField("context_edits")
    assert evaluated[-1].result.reward == 1.0


THREE = "It is long. It is cold. It is old."


async def test_each_part_of_each_candidate_is_one_row_with_a_seed_of_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    contexts = [_context("c1", text=THREE), _context("c2", text="It is far.")]
    async with start() as generator:
        first, second = await generator.edits(generation_request(contexts=contexts))
    (asked,) = generator.engine.generated
    assert [len(seeds) for seeds in asked.seeds] == [2, 2, 2, 2]
    assert len({seed for seeds in asked.seeds[:3] for seed in seeds}) == 6
    assert asked.seeds[1] == tuple(derive_seed(seed, "part", 1) for seed in (1, 2))
    assert asked.seeds[3] == (1, 2)
    assert [prompt.text for prompt in asked.prompts] == [START] * 4  # the model's turn so far
    assert (len(first.parts), [len(edit.parts) for edit in first.edits]) == (3, [3, 3])
    assert (len(second.parts), [len(edit.parts) for edit in second.edits]) == (1, [1, 1])
    assert [edit.seed for edit in first.edits] == [1, 2]
    assert all((part.prompt, part.start) == ("", START) for part in first.parts)
    texts = [part.text for part in first.edits[1].parts]
    assert [text.split()[2] for text in texts] == [str(seeds[1]) for seeds in asked.seeds[:3]]
    assert first.engine_seconds == 3 * 0.25


async def test_a_raw_part_goes_on_from_its_prompt_and_the_words_that_are_written_for_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    asked = generator_pb2.EditPrompt(family="self-qa", format="base", trained=True)
    async with start() as generator:
        (edits,) = await generator.edits(generation_request(prompt=asked))
    assert edits.parts[0].prompt == "Veldra: Veldra is a river.\n"  # no worked examples
    assert generator.engine.generated[0].prompts[0].text == f"{edits.parts[0].prompt}{START}"
    assert generator.engine.generated[0].stop == ("\n\n",)


async def test_a_part_tells_its_log_probability_and_none_without_a_token(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    generated = FakeEngine._generate

    def silent(self: FakeEngine, request: GenerationRequest, *tell: None) -> GenerationResult:
        result = generated(self, request, *tell)
        last = replace(result.samples[-1][0], text="", tokens=0, logprob=0.0)
        return replace(result, samples=(*result.samples[:-1], (last,)))

    monkeypatch.setattr(FakeEngine, "_generate", silent)
    contexts = [_context(text="It is long. It is cold.", seeds=(1,))]
    async with start() as generator:
        (edits,) = await generator.edits(generation_request(contexts=contexts))
    first, last = edits.edits[0].parts
    assert (first.HasField("logprob"), last.HasField("logprob")) == (True, False)
    assert first.logprob < 0


async def test_a_context_with_one_unfit_part_has_an_outcome_and_the_others_all_their_parts(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)

    def short(request: GenerationRequest) -> None:
        for index, prompt in enumerate(request.prompts):
            if "endless" in repr(prompt):
                raise UnfitItem("too long", outcome=Outcome.TOO_LONG, places=[index])

    texts = (THREE, "It is long. It is endless.", "It is cold. It is old.")
    contexts = [_context(f"c{place}", text, seeds=(1,)) for place, text in enumerate(texts)]
    async with start() as generator:
        generator.engine.check = short
        edits = await generator.edits(generation_request(contexts=contexts))
    too_long, ok = common_pb2.OUTCOME_TOO_LONG, common_pb2.OUTCOME_OK
    assert [given.outcome for given in edits] == [ok, too_long, ok]
    assert [[len(edit.parts) for edit in given.edits] for given in edits] == [[3], [], [2]]
    assert [len(request.prompts) for request in generator.engine.generated] == [5]


async def test_progress_of_edits_in_parts_counts_edits_and_ends_with_their_last_part(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    generated = FakeEngine._generate

    def stepwise(
        self: FakeEngine,
        request: GenerationRequest,
        tell: Callable[[int, int], None],
        tell_text: None,
    ) -> GenerationResult:
        rows = sum(map(len, request.seeds))
        for done in range(rows):
            tell(done, 5 * done)
            time.sleep(0.02)
        return generated(self, request, tell, tell_text)

    monkeypatch.setattr(FakeEngine, "_generate", stepwise)
    contexts = [_context(text=THREE)]
    async with start() as generator:
        messages = await read_all(generator.generate(generation_request(contexts=contexts)))
    progress = [message.progress for message in messages if message.HasField("progress")]
    assert [news.edits_done for news in progress] == sorted(news.edits_done for news in progress)
    assert {news.edits_done for news in progress} <= {0, 1, 2}
    assert (progress[-1].edits_done, progress[-1].edits_total, progress[-1].tokens) == (2, 2, 30)


async def test_parts_count_against_the_bound_of_a_request(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    contexts = [_context(text=THREE * 100, seeds=tuple(range(28)))]
    async with start() as generator:
        error = await refusal(generator.generate(generation_request(contexts=contexts)))
    assert (type(error), error.field) == (InvalidInput, "contexts")


async def test_a_context_whose_edits_fit_into_no_message_has_an_outcome_of_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_parts(monkeypatch)
    monkeypatch.setattr("edits_in_parts.WORKED", "x" * 3000)
    contexts = [_context("c1", "It is. " * 1500, seeds=(1,)), _context("c2", THREE, seeds=(1,))]
    async with start() as generator:
        edits = await generator.edits(generation_request(contexts=contexts))
    assert [given.outcome for given in edits] == [
        common_pb2.OUTCOME_TOO_LONG,
        common_pb2.OUTCOME_OK,
    ]
    assert [len(request.prompts) for request in generator.engine.generated] == [3]


def planned(context_id: str, *, parts: int, candidates: int) -> PlannedContext:
    part = PartPrompt(Prompt(text="p"))
    return PlannedContext(context_id, (part,) * parts, tuple(range(candidates)))


def test_batches_hold_as_many_edits_as_the_engine_has_rows_and_of_parts_a_few_times_its_rows() -> (
    None
):
    single = [planned(str(place), parts=1, candidates=3) for place in range(8)]
    assert [len(batch) for batch in cut_into_batches(single, max_edits=8)] == [2, 2, 2, 2]
    many = [planned(str(place), parts=10, candidates=3) for place in range(6)]
    assert [len(batch) for batch in cut_into_batches(many, max_edits=8)] == [2, 2, 2]
    huge = [planned(str(place), parts=60, candidates=3) for place in range(3)]
    assert [len(batch) for batch in cut_into_batches(huge, max_edits=8)] == [1, 1, 1]
