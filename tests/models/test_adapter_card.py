"""A published adapter says what it was trained on, and PEFT finds its base by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from service_harness import training_request
from tiny_model import save_tiny_model

from seal.artifacts import ArtifactStore
from seal.bases import BaseReference
from seal.embedded import EMBEDDED_MODELS
from seal.engine import Adapter, EvaluationRequest, load_adapter, save_adapter
from seal.engine.evaluation import Evaluation, evaluate
from seal.engine.model import FrozenModel
from seal.engine.peft_format import LoraPair
from seal.errors import InvalidInput
from seal.models import resolve_model
from seal.records import AdapterReference
from seal.rpc.convert import policy_message
from seal.v1 import trainer_pb2
from trainer_svc.card import adapter_card
from trainer_svc.plan import TrainingPlan, parse_training
from trainer_svc.publish import publish_adapter

POLICY = AdapterReference(path="adapters/p", sha256="c" * 64)
BASE = BaseReference("smollm2-135m", "a" * 64, location="org/model", revision="v1")


def plan(**changes: object) -> TrainingPlan:
    return parse_training(training_request(**changes))


def adapter(base: BaseReference = BASE, layer: str = "q_proj", rank: int = 4) -> Adapter:
    generator = torch.Generator().manual_seed(0)
    pair = LoraPair(
        torch.randn(rank, 32, generator=generator), torch.randn(32, rank, generator=generator)
    )
    return Adapter(base, rank, 8.0, {f"model.layers.0.self_attn.{layer}": pair})


def test_peft_finds_the_base_and_gives_the_engines_numbers(tmp_path: Path) -> None:
    resolved = resolve_model(str(save_tiny_model(tmp_path / "model")), cache_dir=tmp_path / "cache")
    model = FrozenModel.load(
        resolved.path, name="any name", dtype=torch.float32, base=resolved.base
    )
    trained = adapter(model.base)
    store = ArtifactStore(str(tmp_path / "store"))
    card = adapter_card(trained, plan(), steps=12)
    reference = publish_adapter(store, "run", trained, save_adapter, card=card)
    with store.fetch_directory(reference) as directory:
        assert (directory / "README.md").read_text() == card
        assert load_adapter(directory).base.same_as(resolved.base)
        loaded = AutoPeftModelForCausalLM.from_pretrained(directory)
    request = EvaluationRequest(
        run="r", policy=None, adapter=trained, prompts=("A river",), golds=("s",), max_tokens=1
    )
    (result,) = evaluate(model, [Evaluation(model, request)], max_rows=4)
    before, (wanted,) = model.text.prompt("A river"), model.text.completion("s")
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([before])).logits[0, -1]
    assert float(logits.log_softmax(-1)[wanted]) == pytest.approx(result.logprobs[0], abs=1e-5)


def test_the_card_says_what_it_was_trained_on_and_how_it_is_loaded() -> None:
    card = adapter_card(adapter(), plan(), steps=12)
    assert card.startswith("---\nlibrary_name: peft\nbase_model: org/model\n")
    for fact in (
        "| base model | `org/model`, revision `v1` |",
        f"| sha256 of the base's weights | `{'a' * 64}` |",
        "| policy beneath | none: the base model alone |",
        "| optimiser steps | 12 (",
        "AutoPeftModelForCausalLM.from_pretrained",
        "vllm serve org/model --enable-lora --max-lora-rank 8 ",
    ):
        assert fact in card


def test_the_card_of_an_adapter_that_vllm_cannot_hold_prints_no_command_for_it() -> None:
    assert "--max-lora-rank 512 " in adapter_card(adapter(rank=512), plan(), steps=1)
    card = adapter_card(adapter(rank=513), plan(), steps=1)
    assert "vllm serve" not in card
    assert "vLLM does not serve it: it takes adapters of rank 512 at most." in card


def test_the_card_of_an_adapter_that_sits_on_a_policy_warns_unless_it_contains_the_policy() -> None:
    on_top = {"policy": policy_message("tiny", POLICY)}
    apart = adapter_card(
        adapter(), plan(**on_top, export_mode=trainer_pb2.EXPORT_MODE_ADAPTER), steps=1
    )
    whole = adapter_card(
        adapter(), plan(**on_top, export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY), steps=1
    )
    assert f"| policy beneath | adapter `{POLICY.sha256}`, not contained" in apart
    assert "**It sits on the policy adapter above.**" in apart
    assert f"| policy beneath | adapter `{POLICY.sha256}`, contained" in whole
    assert "**It sits" not in whole


def test_equal_trainings_have_equal_cards_and_a_local_path_is_no_hub_id() -> None:
    cards = {
        adapter_card(adapter(), plan(request_id=name, checkpoint_every_seconds=seconds), steps=3)
        for name, seconds in (("one", 0.0), ("two", 5.0))
    }
    assert len(cards) == 1
    local = adapter_card(adapter(BaseReference("/models/mine")), plan(), steps=3)
    assert "base_model:" not in local
    assert "| base model | `/models/mine` |" in local
    assert "| sha256 of the base's weights | not known |" in local


def test_every_embedded_model_says_where_peft_finds_it() -> None:
    assert [model.hub_id for model in EMBEDDED_MODELS.values()] == [
        "HuggingFaceTB/SmolLM2-135M-Instruct"
    ]


def test_a_card_says_that_a_model_wrote_the_rows_unless_the_request_says_what_they_are() -> None:
    card = adapter_card(adapter(), plan(), steps=12)
    assert "trained on text that a language model wrote for itself\n" in card
    note = "gold question-answer pairs\n| of training passages (supervised)"
    card = adapter_card(adapter(), plan(rows_note=note), steps=12)
    assert "trained on gold question-answer pairs | of training passages (supervised)\n" in card
    assert "wrote for itself" not in card


def test_a_note_on_rows_that_is_a_page_is_refused_by_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(rows_note="x" * 201)
    assert caught.value.field == "rows_note"
