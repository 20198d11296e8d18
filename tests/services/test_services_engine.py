"""The three services on the real engine with a tiny random model.

One inner loop and one M-step over the wire, and what may break there.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    evaluation_request,
    generation_request,
    policy,
    read_all,
    serving,
    text_request,
    training_request,
)
from tiny_model import tiny_model

import evaluator_svc.service
import generator_svc.service
import trainer_svc.service
from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import Query
from seal.domains.by_sentence import STARTS
from seal.engine import Engine, EvaluationRequest
from seal.errors import InvalidInput
from seal.records import AdapterReference
from seal.rpc.client import rpc_errors
from seal.rpc.convert import adapter_message, lora_message, training_record
from seal.settings import EngineSettings, LoraSettings
from seal.v1 import (
    common_pb2,
    evaluator_pb2,
    evaluator_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)
from trainer_svc.trainings import Trainings

MODEL = "tiny-llama"


@dataclass
class Services:
    """All three services on one engine."""

    trainer: trainer_pb2_grpc.TrainerServiceAsyncStub
    generator: generator_pb2_grpc.GeneratorServiceAsyncStub
    evaluator: evaluator_pb2_grpc.EvaluatorServiceAsyncStub

    async def train(self, **changes: object) -> trainer_pb2.TrainingResult:
        request = training_request(**{"policy": policy(base_model=MODEL), **changes})
        return (await read_all(self.trainer.TrainAdapter(request, timeout=DEADLINE_SECONDS)))[
            -1
        ].result

    async def adapter(self, **changes: object) -> AdapterReference:
        reference = training_record(await self.train(**changes)).adapter
        assert reference is not None
        return reference

    def evaluate(self, **changes: object) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        request = evaluation_request(**{"policy": policy(base_model=MODEL), **changes})
        return self.evaluator.Evaluate(request, timeout=DEADLINE_SECONDS)

    async def write(self, **changes: object) -> list[generator_pb2.GenerateTextResponse]:
        request = text_request(**changes)
        return await read_all(self.generator.GenerateText(request, timeout=DEADLINE_SECONDS))

    async def edits(self, **changes: object) -> list[str]:
        request = generation_request(**{"policy": policy(base_model=MODEL), **changes})
        messages = await read_all(self.generator.GenerateEdits(request, timeout=DEADLINE_SECONDS))
        return [
            part.text
            for message in messages
            for edit in message.context_edits.edits
            for part in edit.parts
        ]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(
        tiny_model(), EngineSettings(slots=4, dtype="float32", max_rank=8, generation_rows=4)
    )
    yield engine
    engine.close()


@pytest.fixture
async def services(tmp_path: Path, engine: Engine) -> AsyncIterator[Services]:
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    adapters = AdapterCache(store, base=engine.base)
    trainings = Trainings(engine=engine, store=store, adapters=adapters)
    shared = {"adapters": adapters, "pace": FAST}
    registrations = [
        functools.partial(generator_svc.service.register, engine=engine, **shared),
        functools.partial(trainer_svc.service.register, trainings=trainings, **shared),
        functools.partial(evaluator_svc.service.register, engine=engine, **shared),
    ]
    async with serving(*registrations) as channel:
        yield Services(
            trainer_pb2_grpc.TrainerServiceStub(channel),
            generator_pb2_grpc.GeneratorServiceStub(channel),
            evaluator_pb2_grpc.EvaluatorServiceStub(channel),
        )
        await trainings.close(grace_seconds=5.0)


def _optimizer(learning_rate: float, epochs: int = 2) -> trainer_pb2.OptimizerConfig:
    return trainer_pb2.OptimizerConfig(
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=1,
        schedule="constant",
        max_grad_norm=1.0,
    )


async def test_an_adapter_that_training_left_at_zero_is_inert_and_has_no_score(
    services: Services,
) -> None:
    adapter = await services.adapter(optimizer=_optimizer(1e-38))
    result = (await read_all(services.evaluate(adapter=adapter_message(adapter))))[-1].result
    assert result.outcome == common_pb2.OUTCOME_INERT
    assert {answer.outcome for answer in result.answers} == {common_pb2.OUTCOME_INERT}


async def test_what_does_not_fit_the_engine_is_refused_by_its_field(services: Services) -> None:
    refused = {
        "lora.rank": {"lora": trainer_pb2.LoraConfig(rank=9, alpha=8.0, target_modules=["q_proj"])},
        "lora.target_modules": {
            "lora": trainer_pb2.LoraConfig(rank=4, alpha=8.0, target_modules=["q_proj", "brain"])
        },
        "optimizer.pad_to_tokens": {
            "optimizer": trainer_pb2.OptimizerConfig(
                learning_rate=1e-3, epochs=1, batch_size=1, schedule="linear", pad_to_tokens=32_768
            )
        },
    }
    for field, changes in refused.items():
        with pytest.raises(InvalidInput) as caught:
            await services.train(**changes)
        assert caught.value.field == field


async def test_a_row_that_is_too_long_for_the_engine_is_the_outcome_of_its_training(
    services: Services,
) -> None:
    examples = [trainer_pb2.TrainingExample(completion=text) for text in ("a", "long " * 1000)]
    result = await services.train(examples=examples)
    assert result.outcome == common_pb2.OUTCOME_TOO_LONG


async def test_what_is_too_long_for_the_model_costs_its_own_item_alone(services: Services) -> None:
    endless, short = "endless " * 700, "short"  # the tiny model has 4,096 positions
    trained = await services.train(
        request_id="endless", examples=[trainer_pb2.TrainingExample(completion=endless)]
    )
    assert trained.outcome == common_pb2.OUTCOME_TOO_LONG
    texts = (endless, short, endless, short)
    contexts = [
        generator_pb2.EditContext(context_id=str(index), title="T", text=text, seeds=[1, 2])
        for index, text in enumerate(texts)
    ]
    messages = await read_all(
        services.generator.GenerateEdits(
            generation_request(policy=policy(base_model=MODEL), contexts=contexts),
            timeout=DEADLINE_SECONDS,
        )
    )
    edits = [message.context_edits for message in messages if message.HasField("context_edits")]
    expected = [common_pb2.OUTCOME_TOO_LONG, common_pb2.OUTCOME_OK] * 2
    assert [given.outcome for given in edits] == expected
    assert [len(given.edits) for given in edits] == [0, 2, 0, 2]
    queries = [
        evaluator_pb2.Query(query_id=str(index), question="Who?", answers=["Ada"], context=text)
        for index, text in enumerate(texts)
    ]
    result = (await read_all(services.evaluate(queries=queries)))[-1].result
    assert [answer.outcome for answer in result.answers] == expected
    assert (result.outcome, result.ungraded) == (common_pb2.OUTCOME_OK, 2)


async def test_a_request_with_many_items_at_fault_is_looked_at_twice_and_not_once_for_each(
    services: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    evaluate = engine.evaluate

    def counting(request: EvaluationRequest, **arguments: Any) -> object:
        asked.append(len(request.prompts))
        return evaluate(request, **arguments)

    monkeypatch.setattr(engine, "evaluate", counting)
    queries = [
        evaluator_pb2.Query(
            query_id=str(index),
            question="Who?",
            answers=["Ada"],
            context="endless " * 700 if index % 10 else "",
        )
        for index in range(40)
    ]
    result = (await read_all(services.evaluate(queries=queries)))[-1].result
    assert asked == [40, 4]
    assert result.ungraded == 36


async def test_a_cancelled_training_leaves_its_slot_and_the_other_goes_on(
    services: Services,
) -> None:
    request = training_request(
        policy=policy(base_model=MODEL),
        request_id="endless",
        optimizer=_optimizer(1e-4, epochs=1000),
    )
    progress: list[trainer_pb2.TrainingProgress] = []
    call = services.trainer.TrainAdapter(request, timeout=DEADLINE_SECONDS)
    async for message in call:
        if message.HasField("result"):
            break
        progress.append(message.progress)
        if message.progress.step:
            cancel = trainer_pb2.CancelTrainingRequest(request_id="endless", run="run")
            await services.trainer.CancelTraining(cancel, timeout=DEADLINE_SECONDS)
    assert message.result.outcome == common_pb2.OUTCOME_CANCELLED
    assert 0 < message.result.steps < 2000
    assert (await services.train(request_id="other")).outcome == common_pb2.OUTCOME_OK


async def test_a_generation_that_its_client_left_does_not_keep_the_engine(
    services: Services,
) -> None:
    sampling = generator_pb2.Sampling(temperature=1.0, top_p=1.0, max_tokens=4000)
    request = generation_request(policy=policy(base_model=MODEL), sampling=sampling)
    call = services.generator.GenerateEdits(request, timeout=DEADLINE_SECONDS)
    await anext(aiter(call))
    call.cancel()
    assert (await services.train()).outcome == common_pb2.OUTCOME_OK


async def test_a_diverged_training_is_an_outcome(services: Services) -> None:
    lora = trainer_pb2.LoraConfig(rank=4, alpha=1e38, target_modules=["q_proj", "v_proj"])
    result = await services.train(lora=lora, optimizer=_optimizer(1.0, epochs=20))
    assert result.outcome == common_pb2.OUTCOME_DIVERGED
    assert not result.HasField("adapter")


async def test_an_inner_loop_over_the_wire_trains_publishes_applies_and_grades(
    services: Services,
) -> None:
    adapter = await services.adapter(optimizer=_optimizer(1e-2))
    result = (await read_all(services.evaluate(adapter=adapter_message(adapter))))[-1].result
    assert result.max_logit_difference > 0
    assert len(result.answers) == 2
    assert all(answer.logprob < 0 for answer in result.answers)
    again = await services.adapter(
        optimizer=_optimizer(1e-2), request_id="the same under another id"
    )
    assert again.sha256 == adapter.sha256


async def test_an_m_step_over_the_wire_makes_a_policy_that_writes_trains_and_evaluates(
    services: Services,
) -> None:
    reference = await services.adapter(
        request_id="m-step",
        optimizer=_optimizer(3e-2),
        export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY,
    )
    improved = policy(reference, base_model=MODEL)
    assert await services.edits(policy=improved) == await services.edits(policy=improved)
    assert await services.edits(policy=improved) != await services.edits()
    inner = await services.adapter(request_id="inner", policy=improved, optimizer=_optimizer(1e-2))
    both = (await read_all(services.evaluate(policy=improved, adapter=adapter_message(inner))))[
        -1
    ].result
    alone = (await read_all(services.evaluate(policy=improved)))[-1].result
    assert both.max_logit_difference > 0
    assert alone.max_logit_difference == 0
    stacked = await services.adapter(
        request_id="stacked",
        policy=improved,
        optimizer=_optimizer(1e-2),
        export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY,
    )
    on_base = (await read_all(services.evaluate(adapter=adapter_message(stacked))))[-1].result
    assert [answer.logprob for answer in on_base.answers] == pytest.approx(
        [answer.logprob for answer in both.answers], abs=1e-4
    )


async def test_the_trainer_says_what_its_model_can_take_and_refuses_to_speak_of_another(
    services: Services, engine: Engine
) -> None:
    asked = trainer_pb2.DescribeModelRequest(policy=policy(base_model=MODEL))
    said = await services.trainer.DescribeModel(asked, timeout=DEADLINE_SECONDS)
    assert (said.base_model, said.base_sha256) == (engine.base.name, engine.base.sha256)
    assert (said.max_rank, said.max_row_tokens) == (8, engine.settings.max_row_tokens)
    assert said.max_positions > 0 and "q_proj" in said.target_modules
    assert said.dtype == "float32"
    assert said.max_message_bytes == 4 * 1024 * 1024
    other = trainer_pb2.DescribeModelRequest(policy=policy(base_model="other"))
    with pytest.raises(InvalidInput, match="other"), rpc_errors():
        await services.trainer.DescribeModel(other, timeout=DEADLINE_SECONDS)


async def test_generator_and_evaluator_on_the_engine_take_adapters_of_any_rank_of_their_model(
    services: Services,
) -> None:
    asked = generator_pb2.DescribeGeneratorRequest(policy=policy(base_model=MODEL))
    assert (await services.generator.DescribeGenerator(asked)).max_rank == 0
    question = evaluator_pb2.DescribeEvaluatorRequest(policy=policy(base_model=MODEL))
    assert (await services.evaluator.DescribeEvaluator(question)).max_rank == 0
    other = policy(base_model="other")
    with pytest.raises(InvalidInput, match="other"), rpc_errors():
        await services.generator.DescribeGenerator(
            generator_pb2.DescribeGeneratorRequest(policy=other)
        )
    with pytest.raises(InvalidInput, match="other"), rpc_errors():
        await services.evaluator.DescribeEvaluator(
            evaluator_pb2.DescribeEvaluatorRequest(policy=other)
        )


async def test_the_trainer_says_of_every_shape_whether_memory_has_room_for_it(
    services: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [LoraSettings(rank=rank, target_modules=("q_proj",)) for rank in (1, 8)]
    shapes.append(LoraSettings(rank=1, target_modules=("no_proj",)))
    monkeypatch.setattr(engine._budget, "limit_bytes", 0)  # it recomputes gradients if it has to
    small = engine._budget._estimate(1, shapes[0], None).total
    monkeypatch.setattr(engine._budget, "limit_bytes", small)
    asked = trainer_pb2.DescribeModelRequest(
        policy=policy(base_model=MODEL), loras=map(lora_message, shapes)
    )
    said = await services.trainer.DescribeModel(asked, timeout=DEADLINE_SECONDS)
    fits, refused, unknown = said.lora_refusals
    assert (fits, unknown) == ("", "")
    assert refused.startswith("one adapter of rank 8 on q_proj takes")


async def test_rows_are_counted_as_they_would_be_trained(services: Services) -> None:
    rows = [
        trainer_pb2.TrainingExample(prompt="a question", completion=" and its answer"),
        trainer_pb2.TrainingExample(completion="a document"),
    ]
    asked = trainer_pb2.CountTokensRequest(examples=rows)
    counted = await services.trainer.CountTokens(asked, timeout=DEADLINE_SECONDS)
    for row, tokens in zip(rows, counted.row_tokens, strict=True):
        trained = await services.train(
            request_id=f"row of {tokens}", examples=[row], optimizer=_optimizer(1e-3, epochs=1)
        )
        assert trained.tokens == tokens


async def test_examples_in_a_file_are_the_same_training_as_examples_in_the_message(
    services: Services, tmp_path: Path
) -> None:
    rows = training_request().examples
    whole = await services.train(request_id="carried")
    content = trainer_pb2.TrainingExamples(examples=rows).SerializeToString(deterministic=True)
    ArtifactStore(f"file://{tmp_path}/artifacts").write_bytes("run/rows.binpb", content)
    file = common_pb2.FileRef(path="run/rows.binpb", sha256=hashlib.sha256(content).hexdigest())
    by_file = await services.train(request_id="by file", examples=[], examples_file=file)
    assert by_file.adapter.sha256 == whole.adapter.sha256


async def contexts_in_parts(
    services: Services, *contexts: generator_pb2.EditContext, **changes: object
) -> list[generator_pb2.ContextEdits]:
    fields: dict[str, object] = {
        "policy": policy(base_model=MODEL),
        "prompt": generator_pb2.EditPrompt(family="self-qa-by-sentence", format="base"),
        "sampling": generator_pb2.Sampling(temperature=1.0, top_p=1.0, max_tokens=6),
        "contexts": contexts,
    }
    request = generation_request(**{**fields, **changes})
    messages = await read_all(services.generator.GenerateEdits(request, timeout=DEADLINE_SECONDS))
    return [message.context_edits for message in messages if message.HasField("context_edits")]


async def test_edits_in_parts_over_the_wire_are_the_same_alone_in_company_and_again(
    services: Services,
) -> None:
    one, other = (
        generator_pb2.EditContext(context_id=name, title="Veldra", text=text, seeds=[1, 2])
        for name, text in (("one", "Veldra is a long river. Odo lives there."), ("other", "It is."))
    )
    alone = (await contexts_in_parts(services, one))[0]
    together = await contexts_in_parts(services, other, one)
    again = (await contexts_in_parts(services, one))[0]
    texts = [
        [[part.text for part in edit.parts] for edit in given.edits]
        for given in (alone, together[1], again)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert [part.start for part in alone.parts] == [*STARTS, *STARTS]
    assert [len(edit.parts) for edit in alone.edits] == [14, 14]
    assert len({text for texts_of_edit in texts[0] for text in texts_of_edit}) > 14
    parts = [part for edit in alone.edits for part in edit.parts]
    assert all(part.logprob < 0 and 0 < part.tokens <= 6 for part in parts if part.tokens)
    assert sum(len(edit.parts) for edit in together[0].edits) == 14


async def test_a_policy_that_has_learnt_is_asked_by_the_short_prompt_and_learns_its_parts(
    services: Services,
) -> None:
    context = generator_pb2.EditContext(
        context_id="c", title="Veldra", text="Veldra is a long river.", seeds=[1]
    )
    (worked,) = await contexts_in_parts(services, context)
    asked = generator_pb2.EditPrompt(family="self-qa-by-sentence", format="base", trained=True)
    (short,) = await contexts_in_parts(services, context, prompt=asked)
    assert worked.parts[0].prompt.endswith(short.parts[0].prompt)
    assert len(worked.parts[0].prompt) > len(short.parts[0].prompt)
    wanted = " is Veldra? a river"
    rows = [
        trainer_pb2.TrainingExample(prompt=part.prompt + part.start, completion=wanted)
        for part in short.parts
    ]
    trained = await services.adapter(
        request_id="m-step",
        examples=rows,
        lora=lora_message(LoraSettings(rank=8, alpha=16)),
        optimizer=_optimizer(2e-2, epochs=60),
    )
    (learnt,) = await contexts_in_parts(
        services,
        context,
        policy=policy(trained, base_model=MODEL),
        prompt=asked,
        sampling=generator_pb2.Sampling(temperature=0.0, top_p=1.0, max_tokens=len(wanted) + 1),
    )
    assert [part.text for part in learnt.edits[0].parts] == [wanted] * len(STARTS)
    before, after = ([part.logprob for part in each.edits[0].parts] for each in (short, learnt))
    assert max(before) < min(after)


async def test_a_text_on_policy_and_adapter_is_the_answer_that_the_evaluation_gets(
    services: Services,
) -> None:
    trained = {"optimizer": _optimizer(2e-2, epochs=6)}
    below = policy(await services.adapter(**trained), base_model=MODEL)
    above = adapter_message(
        await services.adapter(request_id="above", policy=below, init_seed=9, **trained)
    )
    domain = get_domain("knowledge")
    answers, texts = [], []
    for adapters in (
        {},
        {"policy": below},
        {"adapter": above},
        {"policy": below, "adapter": above},
    ):
        evaluated = (await read_all(services.evaluate(**adapters)))[-1].result
        answers.append(evaluated.answers[0].answer)
        asked = domain.question_prompt(Query("q1", "What is Veldra?", ("",)), "few-shot")
        sampling = generator_pb2.Sampling(temperature=0.0, top_p=1.0, max_tokens=16)
        events = await services.write(
            prompt=asked.text, stop=asked.stop, sampling=sampling, **adapters
        )
        written = events[-1].result
        assert "".join(event.delta for event in events) == written.text
        texts.append(domain.clean_answer(written.text, "few-shot"))
    assert texts == answers
    assert len(set(texts)) == 4


async def test_a_prompt_beyond_the_models_positions_has_no_text(services: Services) -> None:
    events = await services.write(prompt="x" * 5000)
    assert events[-1].result.outcome == common_pb2.OUTCOME_TOO_LONG


async def test_a_text_needs_no_name_of_the_model_and_a_chat_takes_its_template(
    services: Services,
) -> None:
    hello = common_pb2.ChatMessage(role="user", content="hello")
    chat = (await services.write(prompt="", messages=[hello], stop=[]))[-1].result
    named = await services.write(
        prompt="", messages=[hello], stop=[], policy=policy(base_model=MODEL)
    )
    raw = (await services.write(prompt="hello", stop=[]))[-1].result
    assert chat.text == named[-1].result.text != raw.text
