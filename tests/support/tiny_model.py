"""Tiny random models of the supported architectures with a byte-level tokenizer.

Real transformers models, small enough for every test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from seal.engine.model import FrozenModel

ARCHITECTURES: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ': ' + message['content'] + '</s>' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        "<pad>": 0,
        "<s>": 1,
        "</s>": 2,
        **{symbol: index + 3 for index, symbol in enumerate(alphabet)},
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_transformer(architecture: str = "llama", *, seed: int = 0, **overrides: Any) -> Any:
    """A random transformers model of two layers, in float32."""
    config_class, model_class = ARCHITECTURES[architecture]
    sizes = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    model = model_class(config_class(**(sizes | overrides))).eval()
    model.set_attn_implementation("eager")
    return model


def tiny_model(architecture: str = "llama", *, seed: int = 0, **overrides: Any) -> FrozenModel:
    """The same as the engine's frozen model."""
    return FrozenModel(
        tiny_transformer(architecture, seed=seed, **overrides),
        byte_tokenizer(),
        name=f"tiny-{architecture}",
    )


def save_tiny_model(directory: Path, architecture: str = "llama", *, seed: int = 0) -> Path:
    """A transformers directory as a user has it on disk."""
    tiny_transformer(architecture, seed=seed).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory
