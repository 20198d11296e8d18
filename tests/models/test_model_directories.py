"""Models as people have them on disk: read exactly, or refused by name at the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_model import ARCHITECTURES, byte_tokenizer, save_tiny_model, tiny_transformer

from seal.engine import Engine
from seal.engine.model import FrozenModel
from seal.engine.norm import FrozenRMSNorm
from seal.errors import InvalidInput
from seal.models import resolve_model
from seal.settings import EngineSettings

Tensors = dict[str, torch.Tensor]
SETTINGS = EngineSettings(slots=1, dtype="float32")
WIDTHS = {
    "vocab_size": 259,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}


def load(directory: Path, dtype: torch.dtype = torch.float32) -> FrozenModel:
    return FrozenModel.load(resolve_model(str(directory)).path, name="mine", dtype=dtype)


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@torch.no_grad()
def logits_of(model: FrozenModel) -> torch.Tensor:
    """The engine's logits after some text."""
    tokens = torch.tensor(model.text.prompt("A river in Veldra."))
    plan = model.kernels.lay_out([[len(tokens)]], model.device).attention
    hidden = model.hidden(model.embed(tokens), torch.arange(len(tokens)), route=None, plan=plan)
    return (hidden @ model.head_V_d.t()).float()


@torch.no_grad()
def own_logits(directory: Path, model: FrozenModel, dtype: torch.dtype) -> torch.Tensor:
    """Those of transformers."""
    own = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    return own(input_ids=torch.tensor([model.text.prompt("A river in Veldra.")])).logits[0].float()


# What is taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_of_each_architecture_loads_and_computes_as_transformers_does(
    tmp_path: Path, architecture: str, dtype: torch.dtype
) -> None:
    save_tiny_model(tmp_path, architecture)
    model = load(tmp_path, dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    assert torch.allclose(logits_of(model), own_logits(tmp_path, model, dtype), atol=tolerance)
    assert model.text.end_tokens == {2}


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_output_matrix_need_not_be_saved_twice(tmp_path: Path, tied: bool) -> None:
    save_tiny_model(tmp_path)
    tiny_transformer(tie_word_embeddings=tied).save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    model = load(tmp_path)
    assert (model.head_V_d is model.model.get_input_embeddings().weight) is tied


# Tensors


def without_layer_one(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if ".layers.1." not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_layer_one, r"lack tensors of the model: model\.layers\.1\..* and 6 more"),
        (
            lambda tensors: {f"_orig_mod.{name}": value for name, value in tensors.items()},
            r"lack tensors of the model: lm_head\.weight, model\.embed_tokens",
        ),
        (
            lambda tensors: {f"transformer.{name}": value for name, value in tensors.items()},
            "lack tensors of the model: lm_head",
        ),
        (
            lambda tensors: tensors | {"model.layers.2.mlp.up_proj.weight": torch.zeros(2)},
            r"hold tensors that the model does not have: model\.layers\.2\.mlp\.up_proj",
        ),
        (
            lambda tensors: tensors | {"model.norm.weight": torch.zeros(7)},
            r"do not fit the configuration: model\.norm\.weight of shape \(7,\) where .* \(32,\)",
        ),
    ],
)
def test_weights_that_are_not_exactly_the_models_are_refused_by_tensor(
    tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    save_tiny_model(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(InvalidInput, match=message) as caught:
        load(tmp_path)
    assert caught.value.field == "model"
    assert "save_pretrained" in caught.value.remedy


# Architectures


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            transformers.Phi3Config(**WIDTHS, pad_token_id=0),
            r"'mine' \(phi3\) has layers without q_proj",
        ),
        (transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4), r"\(gpt2\) has layers without"),
        (
            transformers.OPTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
            r"\(opt\) has no intermediate_size",
        ),
        (transformers.OlmoConfig(**WIDTHS), r"\(olmo\) has a norm without weights"),
        (transformers.PhiConfig(**WIDTHS), r"\(phi\) has no plain output matrix"),
        (transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4), r"\(bloom\) has layers"),
        (transformers.MixtralConfig(**WIDTHS), r"\(mixtral\) is a mixture of experts"),
        (transformers.T5Config(), r"\(t5\) is an encoder-decoder model"),
        (
            transformers.LlamaConfig(**WIDTHS, rope_parameters=LONG_ROPE),
            r"\(llama\) is a model of LongRoPE",
        ),
    ],
)
def test_an_architecture_that_the_engine_does_not_take_is_refused_before_weights_are_read(
    tmp_path: Path, config: transformers.PretrainedConfig, reason: str
) -> None:
    save_tiny_model(tmp_path)
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(InvalidInput, match=reason) as caught:
        Engine.load(tmp_path, name="mine", settings=SETTINGS)
    assert "Llama, Qwen2, Qwen3, Gemma 3 or Mistral" in caught.value.remedy


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "no-such-model"},
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "llama", "hidden_act": "no-such-function"},
    ],
)
def test_a_configuration_that_makes_no_model_is_refused_by_name(
    tmp_path: Path, config: dict[str, object]
) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match=r"'mine': transformers cannot build it from its config"):
        Engine.load(tmp_path, name="mine", settings=SETTINGS)


@pytest.mark.parametrize("content", ["{}", "no json", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: str) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidInput, match="tokenizer of model 'mine' cannot be read"):
        load(tmp_path)


# Norms


@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_norms_form_is_told_exactly_whatever_its_weights_in_bfloat16(
    architecture: str, size: float
) -> None:
    transformer = tiny_transformer(architecture)
    norms = {
        name: module
        for name, module in transformer.named_modules()
        if type(module).__name__.endswith("RMSNorm")
    }
    generator = torch.Generator().manual_seed(1)
    for module in norms.values():
        module.weight.data.uniform_(0.9 * size, 1.1 * size, generator=generator)
    transformer.to(torch.bfloat16)
    weights = {name: module.weight.detach().clone() for name, module in norms.items()}
    samples = {
        name: torch.randn(4, len(weight), generator=generator).bfloat16()
        for name, weight in weights.items()
    }
    wanted = {name: module(samples[name]) for name, module in norms.items()}
    model = FrozenModel(transformer, byte_tokenizer(), name="norms")
    assert len(norms) >= 5
    for name in norms:
        norm = model.model.get_submodule(name)
        assert isinstance(norm, FrozenRMSNorm)
        added = 1.0 if architecture == "gemma3" else 0.0
        assert torch.equal(norm.weight.float(), weights[name].float() + added)
        assert torch.equal(norm(samples[name]), wanted[name])


def test_the_gradient_through_a_gemma_norm_in_bfloat16_is_that_of_the_module() -> None:
    transformer = tiny_transformer("gemma3").to(torch.bfloat16)
    module = transformer.model.norm
    module.weight.data.uniform_(-0.5, 0.5)
    x = torch.randn(5, 32).bfloat16()
    grads = []
    for norm in (module, FrozenRMSNorm(module.weight.detach().float() + 1, module.eps)):
        leaf = x.clone().requires_grad_()
        norm(leaf).square().sum().backward()
        grads.append(leaf.grad.float())
    assert torch.allclose(grads[0], grads[1], atol=0.02 * float(grads[0].abs().max()))


# GGUF files


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_gguf_of_each_architecture_becomes_the_model_that_it_was_made_of(
    tmp_path: Path, architecture: str
) -> None:
    pytest.importorskip("gguf")
    from tiny_gguf import gguf_transformer, write_tiny_gguf

    from seal.engine.convert import convert_gguf

    write_tiny_gguf(tmp_path / "tiny.gguf", architecture)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    model = load(tmp_path / "model")
    wanted = gguf_transformer(architecture)
    for parameter in wanted.parameters():
        parameter.data = parameter.data.bfloat16().float()
    tokens = torch.tensor([model.text.prompt("the <|im_end|> cat")])
    with torch.no_grad():
        expected = wanted(input_ids=tokens).logits[0]
    plan = model.kernels.lay_out([[tokens.shape[1]]], model.device).attention
    with torch.no_grad():
        hidden = model.hidden(
            model.embed(tokens[0]), torch.arange(tokens.shape[1]), route=None, plan=plan
        )
    assert torch.allclose(hidden @ model.head_V_d.t(), expected, atol=1e-4)
    assert (model.text.end_tokens, 2 in tokens[0]) == ({2}, False)
    assert model.text.decode(model.text.completion(" cat <|im_end|>")).strip() == "cat <|im_end|>"
