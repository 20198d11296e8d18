"""Tiny GGUF files as llama.cpp's converter writes them, from the tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_model import tiny_transformer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY = 270
KINDS = {  # architecture: (what the file calls it, its tokenizer's kind, head_dim)
    "llama": ("llama", "gpt2", 8),
    "mistral": ("llama", "llama", 8),
    "qwen2": ("qwen2", "gpt2", 8),
    "qwen3": ("qwen3", "gpt2", 128),
    "gemma3": ("gemma3", "llama", 8),
}
CONTROL, NORMAL, UNUSED, BYTE = 3, 1, 5, 6


def gguf_transformer(architecture: str) -> Any:
    """The model that `write_tiny_gguf` writes."""
    head_dim = KINDS[architecture][2]
    return tiny_transformer(
        architecture,
        vocab_size=VOCABULARY,
        head_dim=head_dim,
        tie_word_embeddings=architecture == "gemma3",
        max_position_embeddings=64,
    )


def write_tiny_gguf(path: Path, architecture: str) -> None:
    """Weights in float32, permuted and shifted as the format has them, and a tokenizer."""
    kind, tokenizer, head_dim = KINDS[architecture]
    model = gguf_transformer(architecture)
    config = model.config
    writer: Any = gguf.GGUFWriter(str(path), kind)
    for add, value in (
        (writer.add_context_length, config.max_position_embeddings),
        (writer.add_embedding_length, config.hidden_size),
        (writer.add_block_count, config.num_hidden_layers),
        (writer.add_feed_forward_length, config.intermediate_size),
        (writer.add_head_count, config.num_attention_heads),
        (writer.add_head_count_kv, config.num_key_value_heads),
        (writer.add_layer_norm_rms_eps, config.rms_norm_eps),
        (writer.add_rope_freq_base, 10000.0 if kind != "gemma3" else 1e6),
        (writer.add_key_length, head_dim),
        (writer.add_value_length, head_dim),
        (writer.add_vocab_size, VOCABULARY),
    ):
        add(value)
    if kind == "llama":
        writer.add_rope_dimension_count(head_dim)
    if kind == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    _add_tokenizer(writer, tokenizer)
    _add_tensors(writer, model, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, kind: str) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if kind == "gpt2":
        letters = sorted(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
        tokens, types = [*special, *letters, "Ġt"], [CONTROL] * 3 + [NORMAL] * 257
        writer.add_token_merges(["Ġ t"])
        writer.add_tokenizer_pre("qwen2")
    else:
        tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
        types = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL]
        writer.add_token_scores([0.0] * VOCABULARY)
        writer.add_add_bos_token(True)
    missing = VOCABULARY - len(tokens)
    writer.add_tokenizer_model(kind)
    writer.add_token_list([*tokens, *(f"<unused{index}>" for index in range(missing))])
    writer.add_token_types([*types, *[UNUSED] * missing])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)


def _add_tensors(writer: Any, model: Any, kind: str) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(
        getattr(gguf.MODEL_ARCH, kind.upper()), config.num_hidden_layers
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if kind == "llama" and ".q_proj." in name:
            values = _permuted(values, config.num_attention_heads)
        if kind == "llama" and ".k_proj." in name:
            values = _permuted(values, config.num_key_value_heads)
        if kind == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(own, np.ascontiguousarray(values, dtype=np.float32))


def _permuted(values: Any, heads: int) -> Any:
    """Halves of each head's rows interleaved: the format's rotary layout."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
