"""Random models of a shape, made on the device, and requests whose rows have given lengths."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from benchmarks.cuda.plan import Shape
from benchmarks.random_model import byte_tokenizer
from seal.engine import Adapter, EvaluationRequest, TrainingRequest
from seal.engine.model import FrozenModel
from seal.engine.peft_format import LoraPair
from seal.settings import LoraSettings, OptimizerSettings

POSITIONS = 4096
_CONFIGS: dict[str, type[Any]] = {"qwen2": Qwen2Config, "llama": LlamaConfig}


def random_transformer(
    shape: Shape, *, device: str, dtype: torch.dtype, attention: str = "eager"
) -> Any:
    """A transformers model with random weights; nothing is read from disk."""
    config = _CONFIGS[shape.family](
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=shape.tied,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=dtype, attn_implementation=attention
        )
    return model.eval()


def frozen_model(shape: Shape, *, device: str, dtype: torch.dtype) -> FrozenModel:
    """The engine's model of a shape: one token per byte of text."""
    model = random_transformer(shape, device=device, dtype=dtype)
    return FrozenModel(model, byte_tokenizer(), name=shape.name)


def text_of(tokens: int, seed: int) -> str:
    """Random letters, one token each."""
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=tokens))


def inner_loop(
    lengths: Sequence[int], *, seed: int, lora: LoraSettings, epochs: int
) -> TrainingRequest:
    """An edit with rows of given lengths, their end token included; the published optimiser."""
    return TrainingRequest(
        run="benchmark",
        policy=None,
        examples=tuple(("", text_of(count - 1, seed + row)) for row, count in enumerate(lengths)),
        lora=lora,
        optimizer=OptimizerSettings(learning_rate=1e-3, epochs=epochs, batch_size=1),
        init_seed=seed,
        order_seed=seed,
    )


def m_step(
    tokens: tuple[int, int], *, rows: int, steps: int, lora: LoraSettings
) -> TrainingRequest:
    """Supervised finetuning on (prompt, edit) pairs of given lengths, `rows` a step."""
    return TrainingRequest(
        run="benchmark",
        policy=None,
        examples=tuple(
            (text_of(tokens[0], row), text_of(tokens[1] - 1, -row)) for row in range(rows)
        ),
        lora=lora,
        optimizer=OptimizerSettings(learning_rate=3e-4, epochs=steps, batch_size=rows),
        init_seed=0,
        order_seed=0,
    )


def questions(
    adapter: Adapter | None, *, count: int, prompt_tokens: int, answer_tokens: int, seed: int
) -> EvaluationRequest:
    """Questions of one length on one adapter; only the number of tokens ends an answer."""
    return EvaluationRequest(
        run="benchmark",
        policy=None,
        adapter=adapter,
        prompts=tuple(text_of(prompt_tokens, seed + place) for place in range(count)),
        golds=("answer",) * count,
        max_tokens=answer_tokens,
    )


def random_adapter(model: FrozenModel, lora: LoraSettings, *, seed: int) -> Adapter:
    """An adapter that changes the logits a little."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {
        name: LoraPair(
            torch.randn(lora.rank, size.in_features, generator=generator).to(model.dtype) * 0.02,
            torch.randn(size.out_features, lora.rank, generator=generator).to(model.dtype) * 0.002,
        )
        for name, size in model.target_layers(lora.target_modules).items()
    }
    return Adapter(model.base, lora.rank, lora.alpha, pairs)
