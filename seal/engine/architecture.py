"""Which models the engine takes: told from the configuration alone, before any weight is read.

Anything of transformers whose layers are built as Llama's are passes here; whether the engine then
computes the same as transformers is shown by the self-check of `seal.engine.model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from seal.errors import InvalidInput

SUPPORTED = "a dense Llama, Qwen2, Qwen3, Gemma 3 or Mistral text model, or one built like them"
_WIDTHS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_FOREIGN_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    StrictDataclassError,
)
"""What transformers raises for a configuration that it does not know or that contradicts itself."""


def read_config(directory: Path, *, name: str) -> Any:
    """The configuration of a transformers directory.

    Raises InvalidInput for one that cannot be read or that the engine does not take.
    """
    try:
        config = AutoConfig.from_pretrained(directory)
    except _FOREIGN_ERRORS as error:
        raise _unreadable(name, error) from error
    refuse_config(config, name=name)
    return config


def empty_model(config: Any, *, name: str, dtype: torch.dtype) -> nn.Module:
    """The model of a configuration without memory for its weights.

    Raises InvalidInput where transformers cannot build it or the engine does not take it.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except _FOREIGN_ERRORS as error:
        raise _unreadable(name, error) from error
    refuse_structure(model, name=name)
    return model


def refuse_config(config: Any, *, name: str) -> None:
    """Raise InvalidInput for a kind of model that the engine does not take."""
    kinds = {
        "a mixture of experts": any(
            getattr(config, field, 0)
            for field in ("num_experts", "num_local_experts", "n_routed_experts")
        ),
        "a multimodal model": any(
            hasattr(config, field) for field in ("vision_config", "audio_config")
        ),
        "an encoder-decoder model": bool(getattr(config, "is_encoder_decoder", False)),
        "a quantised model": getattr(config, "quantization_config", None) is not None,
        "a model of LongRoPE": "longrope" in _rope_types(config),
    }
    for kind, applies in kinds.items():
        if applies:
            raise _refused(name, config, f"is {kind}")


def _rope_types(config: Any) -> set[object]:
    """How positions are rotated, in all kinds of layers.

    By LongRoPE a pass with one row beyond the original length turns all of its rows as long ones:
    what a row gives would depend on its company.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(kind for kind in parameters.values() if isinstance(kind, dict))]
    return {kind.get("rope_type") for kind in kinds}


def refuse_structure(model: nn.Module, *, name: str) -> None:
    """Raise InvalidInput unless the layers are built as the engine needs them."""
    config: Any = model.config
    modules = list(model.named_modules())
    attentions = [module for _, module in modules if hasattr(module, "layer_idx")]
    attentions = [module for module in attentions if hasattr(module, "q_proj")]
    if len(attentions) != getattr(config, "num_hidden_layers", 0) or not all(
        isinstance(getattr(module, part, None), nn.Linear)
        for module in attentions
        for part in ("q_proj", "k_proj", "v_proj")
    ):
        raise _refused(name, config, "has layers without q_proj, k_proj and v_proj")
    for width in _WIDTHS:
        if not isinstance(getattr(config, width, None), int):
            raise _refused(name, config, f"has no {width}")
    for path, module in modules:
        if type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is None:
            raise _refused(name, config, f"has a norm without weights, {path}")
    head = model.get_output_embeddings()  # type: ignore[operator]
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise _refused(name, config, "has no plain output matrix")


def _refused(name: str, config: Any, what: str) -> InvalidInput:
    return InvalidInput(
        f"model {name!r} ({config.model_type}) {what}, which the engine does not support",
        field="model",
        remedy=f"use {SUPPORTED}",
    )


def _unreadable(name: str, error: Exception) -> InvalidInput:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InvalidInput(
        f"model {name!r}: transformers cannot build it from its config.json: {reason[:200]}",
        field="model",
        remedy=f"use {SUPPORTED}, with the config.json that belongs to the weights",
    )
