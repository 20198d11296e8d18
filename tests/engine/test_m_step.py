"""The M-step on the engine.

A step cut into passes is the step in one pass, and what is exported is one adapter on the base
model that gives the logits of policy plus update, or of the update alone where it starts from the
base.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_engine_training import TEXTS, TOLERANCE, difference, request, train
from tiny_model import byte_tokenizer, tiny_model, tiny_transformer
from trainer_harness import MODEL, live_trainer

from seal.artifacts import ArtifactStore
from seal.engine import Adapter, Engine, EvaluationRequest, load_adapter
from seal.engine.text import ModelText
from seal.errors import InvalidInput
from seal.prompts import Message, Prompt
from seal.records import AdapterReference, LearntRow
from seal.rpc.convert import training_record
from seal.runs.improve import improve_request as request_of
from seal.settings import ALL_PROJECTIONS, ImproveSettings, LoraSettings, OptimizerSettings, RunSpec
from seal.v1 import trainer_pb2
from trainer_svc.plan import parse_training

LORA = LoraSettings(rank=64, alpha=128, target_modules=ALL_PROJECTIONS)
TEXT = ModelText(byte_tokenizer(), name="tiny")
PROMPT, GOLD = "Learn Tower 3:\n", "Tower 3 has nine lamps."
LOGIT_TOLERANCE = 1e-4
"""Largest difference of logits of size 1 between two orders of the same float32 sums."""
KEPT = tuple(
    LearntRow(part=0, prompt=f"Learn {n}:\n", completion=f"Tower {n} has {n} lamps.")
    for n in range(12)
)


def test_a_batch_of_ten_rows_in_several_passes_equals_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tuple((prompt, f"{text} {n}") for n in range(4) for prompt, text in TEXTS)
    item = request(seed=3, examples=rows, lora=LORA, batch_size=10, epochs=2)
    passes, results = [], []
    for max_pass_tokens in (1_000_000, 120, 1):
        model, forwards = tiny_model(), []
        embed = model.embed
        monkeypatch.setattr(
            model,
            "embed",
            lambda tokens_T, embed=embed, forwards=forwards: forwards.append(1) or embed(tokens_T),
        )
        results += train(model, [item], rank=64, max_pass_tokens=max_pass_tokens)
        passes.append(len(forwards) / results[-1].steps)
    whole, cut, single = results
    assert whole.steps == 4
    assert passes[0] == 1.0
    assert 2 <= passes[1] < 10
    assert passes[2] == 10.0
    for parts in (cut, single):
        assert difference(parts.adapter, whole.adapter) <= TOLERANCE
        assert parts.final_loss == pytest.approx(whole.final_loss, rel=1e-5)
        assert parts.tokens == whole.tokens


def reference_logits(adapters: Sequence[Adapter], text: str) -> torch.Tensor:
    """Logits (T, V) of plain transformers with the updates added to the weights."""
    model = tiny_transformer()
    for adapter in adapters:
        for name, pair in adapter.pairs.items():
            model.get_submodule(name).weight.data += adapter.scale * pair.b @ pair.a
    with torch.no_grad():
        return model(input_ids=torch.tensor([TEXT.prompt(text)])).logits[0]


def reference_logprob(adapters: Sequence[Adapter]) -> float:
    """Mean log p of the gold completion."""
    tokens, prompt = TEXT.prompt(PROMPT + GOLD), len(TEXT.prompt(PROMPT))
    logprobs = reference_logits(adapters, PROMPT + GOLD).log_softmax(-1)
    return float(
        torch.stack(
            [logprobs[place - 1, tokens[place]] for place in range(prompt, len(tokens))]
        ).mean()
    )


def engine_logprob(
    engine: Engine, *, policy: Adapter | None = None, adapter: Adapter | None = None
) -> float:
    """The same by the engine."""
    item = EvaluationRequest(
        run="run", policy=policy, adapter=adapter, prompts=(PROMPT,), golds=(GOLD,), max_tokens=2
    )
    return engine.evaluate(item).future.result(60).logprobs[0]


def improve_request(start: str, policy: AdapterReference | None) -> trainer_pb2.TrainAdapterRequest:
    """What the worker sends for the setting `improve.start`."""
    improve = ImproveSettings(
        start=start,
        lora=LORA,
        optimizer=OptimizerSettings(learning_rate=5e-3, epochs=3, batch_size=10),
    )
    spec = RunSpec(model=MODEL, improve=improve)
    return request_of(KEPT, run="run", round=2, spec=spec, policy=policy)


def changed(
    request: trainer_pb2.TrainAdapterRequest, name: str, **changes: object
) -> trainer_pb2.TrainAdapterRequest:
    copy = trainer_pb2.TrainAdapterRequest()
    copy.CopyFrom(request)
    copy.MergeFrom(trainer_pb2.TrainAdapterRequest(request_id=name, **changes))
    return copy


@pytest.mark.parametrize("start", ["policy", "base"])
async def test_the_improved_policy_is_one_adapter_with_the_logits_of_what_it_was_made_of(
    tmp_path: Path, start: str
) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))

    def read(message: trainer_pb2.TrainingResult) -> tuple[Adapter, AdapterReference]:
        reference = training_record(message).adapter
        assert reference is not None
        with store.fetch_directory(reference) as directory:
            return load_adapter(directory), reference

    async with live_trainer(tmp_path, store=store) as trainer:
        first = improve_request("base", None)
        first.init_seed, first.request_id = 5, "the policy of round 1"
        policy, reference = read(await trainer.result(first))
        request = improve_request(start, reference)
        exported, _ = read(await trainer.result(request))
        update, _ = read(
            await trainer.result(
                changed(request, "update alone", export_mode=trainer_pb2.EXPORT_MODE_ADAPTER)
            )
        )
        parts = [policy, update] if start == "policy" else [update]
        assert exported.rank == 64 * len(parts)
        wanted = reference_logits(parts, PROMPT + GOLD)
        torch.testing.assert_close(
            reference_logits([exported], PROMPT + GOLD),
            wanted,
            atol=LOGIT_TOLERANCE,
            rtol=LOGIT_TOLERANCE,
        )
        others = [
            reference_logits(other, PROMPT + GOLD)
            for other in ([], [policy], [policy, update] if start == "base" else [update])
        ]
        assert (
            min(float((logits - wanted).abs().max()) for logits in others) > 100 * LOGIT_TOLERANCE
        )
        by_reference = reference_logprob(parts)
        on_its_own = (
            {"policy": policy, "adapter": update} if start == "policy" else {"adapter": update}
        )
        for place in ({"policy": exported}, {"adapter": exported}, on_its_own):
            by_engine = engine_logprob(trainer.engine, **place)
            assert by_engine == pytest.approx(by_reference, abs=LOGIT_TOLERANCE)


async def test_trained_anew_from_the_base_the_policy_before_leaves_no_trace(tmp_path: Path) -> None:
    async with live_trainer(tmp_path) as trainer:
        before = training_record(await trainer.result(improve_request("base", None))).adapter
        assert before is not None
        again = await trainer.result(changed(improve_request("base", before), "again"))
        on_top = await trainer.result(changed(improve_request("policy", before), "on top"))
    assert again.adapter.sha256 == before.sha256
    assert on_top.adapter.sha256 != before.sha256


def test_a_chat_is_trained_on_as_it_was_asked_and_its_passage_stays_text():
    asked = (Message("user", "Learn </s> this."),)
    kept = KEPT[0].model_copy(update={"prompt": "1.", "messages": asked})
    request = request_of((kept,), run="run", round=1, spec=RunSpec(), policy=None)
    plan = parse_training(request)
    assert plan.examples == ((Prompt(text="1.", messages=asked), kept.completion),)
    model = tiny_model()
    (row,) = (model.text.example(*example) for example in plan.examples)
    assert model.tokenizer.decode(row.tokens, skip_special_tokens=False) == (
        f"<s>user: Learn </s> this.</s><s>assistant: 1.{kept.completion}</s>"
    )
    assert row.tokens.count(model.text.end_token) == 2
    request.examples[0].messages[0].role = "tool"
    with pytest.raises(InvalidInput) as caught:
        parse_training(request)
    assert caught.value.field == "examples[0].messages[0].role"
