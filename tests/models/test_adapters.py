"""Adapters of other programs: read exactly, or refused by what is in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model, tiny_transformer

from seal.engine import Adapter, EvaluationRequest, concatenate, load_adapter, save_adapter
from seal.engine.evaluation import Evaluation, evaluate
from seal.errors import InvalidInput

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]
PROMPT, GOLD = "A river in", " Veldra"


def save_with_peft(directory: Path, **options: Any) -> PeftModel:
    """An adapter of PEFT's with random factors, saved; what it was saved from."""
    torch.manual_seed(0)
    settings: Config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | options
    model = get_peft_model(tiny_transformer(), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 1.0)
    model.peft_config["default"].base_model_name_or_path = "tiny-llama"
    model.save_pretrained(directory, save_embedding_layers=False)
    return model.eval()


@torch.no_grad()
def logprob(model: Any) -> float:
    """Mean log-probability of the completion by transformers and PEFT."""
    text = tiny_model().text
    before, wanted = text.prompt(PROMPT), text.completion(GOLD)
    scores = model(input_ids=torch.tensor([before + wanted])).logits[0].log_softmax(-1)
    return float(
        sum(scores[len(before) - 1 + place, token] for place, token in enumerate(wanted))
        / len(wanted)
    )


def engine_logprob(adapter: Adapter) -> float:
    request = EvaluationRequest(
        run="r", policy=None, adapter=adapter, prompts=(PROMPT,), golds=(GOLD,), max_tokens=1
    )
    model = tiny_model()
    (result,) = evaluate(model, [Evaluation(model, request)], max_rows=4)
    return result.logprobs[0]


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tensors(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


# Read exactly


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"lora_alpha": 3.5},
        {"layers_to_transform": [1]},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"lora_dropout": 0.1},
    ],
)
def test_what_means_a_plain_update_is_read_exactly(tmp_path: Path, options: Config) -> None:
    model = save_with_peft(tmp_path, **options)
    adapter = load_adapter(tmp_path)
    assert adapter.base.name == "tiny-llama"
    assert engine_logprob(adapter) == pytest.approx(logprob(model), abs=2e-5)
    assert abs(logprob(model) - logprob(tiny_transformer())) > 5e-4


def test_an_rslora_adapter_keeps_its_scale_when_it_is_exported_and_merged(tmp_path: Path) -> None:
    model = save_with_peft(tmp_path / "rs", use_rslora=True)
    adapter = load_adapter(tmp_path / "rs")
    save_adapter(adapter, tmp_path / "again")
    again = PeftModel.from_pretrained(tiny_transformer(), str(tmp_path / "again")).eval()
    assert logprob(again) == pytest.approx(logprob(model), abs=1e-5)
    silent = load_adapter(tmp_path / "again")
    for pair in silent.pairs.values():
        pair.b.zero_()
    merged = engine_logprob(concatenate(adapter, silent))
    assert merged == pytest.approx(logprob(model), abs=2e-5)


# Refused by name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base model too"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changes"),
        ({"init_lora_weights": "olora"}, "'olora', which changes the base model too"),
        ({"use_dora": True}, r"uses use_dora \(DoRA\)"),
        ({"alora_invocation_tokens": [5, 6]}, r"uses alora_invocation_tokens \(aLoRA\)"),
        ({"rank_pattern": {"q_proj": 2}}, "uses rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "uses alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
        ({"trainable_token_indices": [1, 2]}, "uses trainable_token_indices"),
        ({"lora_bias": True}, "uses lora_bias"),
    ],
)
def test_what_means_another_update_is_refused_by_its_option(
    tmp_path: Path, options: Config, named: str
) -> None:
    save_with_peft(tmp_path, **options)
    with pytest.raises(InvalidInput, match=named) as caught:
        load_adapter(tmp_path)
    assert caught.value.field == "adapter"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r": None}, "r = None, which is no rank"),
        ({"r": 0}, "r = 0, which is no rank"),
        ({"r": -4}, "r = -4"),
        ({"r": "4"}, "r = '4'"),
        ({"r": True}, "r = True"),
        ({"r": 5}, "two factors of rank 5"),
        ({"lora_alpha": "much"}, "lora_alpha = 'much', which is no number"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"some_new_variant": {"on": 1}}, "uses some_new_variant"),
        ({"layer_replication": [[0, 1]]}, "uses layer_replication"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga', which changes"),
    ],
)
def test_a_configuration_that_says_nothing_sensible_is_refused_by_its_field(
    tmp_path: Path, changes: Config, named: str
) -> None:
    save_with_peft(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(InvalidInput, match=named):
        load_adapter(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"{", b"", b'{"r": "caf\xe9"}', b"\xff\xfe"])
def test_a_configuration_that_is_no_json_object_is_refused_by_file(
    tmp_path: Path, content: bytes
) -> None:
    save_with_peft(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"adapter_config\.json"):
        load_adapter(tmp_path)


def with_first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    """Change the first factor."""
    return lambda tensors: tensors | {min(tensors): change(tensors[min(tensors)])}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_first(lambda factor: factor * float("nan")), "holds NaN or infinite weights"),
        (with_first(lambda factor: factor / 0.0), "holds NaN or infinite weights"),
        (with_first(lambda factor: factor.flatten()), "two factors of rank 4"),
        (with_first(lambda factor: factor[:2].contiguous()), "two factors of rank 4"),
        (with_first(lambda factor: factor.to(torch.int8)), "factors of type int8"),
        (with_first(lambda factor: factor.double()), "factors of type float64"),
        (lambda tensors: {n: t for n, t in tensors.items() if "lora_B" not in n}, "two factors"),
        (lambda tensors: {n: t for n, t in tensors.items() if "lora_A" not in n}, "no LoRA fact"),
        (lambda tensors: tensors | {"base_model.model.extra": torch.zeros(2)}, "model.extra"),
        (
            lambda tensors: {n.removeprefix("base_model.model."): t for n, t in tensors.items()},
            "no LoRA factors, such as model.layers.0",
        ),
        (lambda tensors: {}, "holds no tensors"),
    ],
)
def test_factors_that_are_none_are_refused_by_layer(
    tmp_path: Path, change: Callable[[Tensors], Tensors], named: str
) -> None:
    save_with_peft(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(InvalidInput, match=named) as caught:
        load_adapter(tmp_path)
    assert caught.value.remedy


def test_an_adapter_of_other_layers_is_refused_by_layer(tmp_path: Path) -> None:
    save_with_peft(tmp_path)
    change_tensors(
        tmp_path,
        lambda tensors: {name.replace("layers.1.", "layers.7."): t for name, t in tensors.items()},
    )
    adapter = load_adapter(tmp_path)
    with pytest.raises(InvalidInput, match=r"layer model\.layers\.7\.\S+ does not fit"):
        tiny_model().check_adapter(adapter, field="adapter")
