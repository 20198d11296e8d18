"""The widths of a base model that memory depends on.

From a loaded model or from its configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from seal.engine.bank import LayerSize, parameters_per_rank
from seal.settings import ALL_PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What the memory model needs to know of the base."""

    base_bytes: int
    item_bytes: int
    """Bytes of one value of the compute type."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norm_values: int
    """Values per token that the norms of one layer read, heads' norms included."""
    targets: Mapping[str, LayerSize]
    """Layer name -> widths, of all linears that may get an adapter."""

    def parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Values of one adapter."""
        return rank * parameters_per_rank(self.targets, targets)


def size_of(model: nn.Module) -> ModelSize:
    """Sizes of a transformers causal language model.

    Before or after the engine has taken its linears; it may lie on the meta device.
    """
    config: Any = model.config
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    linears = {
        name: LayerSize(int(module.in_features), int(module.out_features))
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in ALL_PROJECTIONS and hasattr(module, "in_features")
    }
    layers = int(config.num_hidden_layers)
    return ModelSize(
        base_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        item_bytes=next(model.parameters()).element_size(),
        layers=layers,
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocabulary=int(config.vocab_size),
        norm_values=sum(
            _norm_values(name, module, heads, kv_heads) for name, module in model.named_modules()
        )
        // layers,
        targets=linears,
    )


def _norm_values(name: str, module: nn.Module, heads: int, kv_heads: int) -> int:
    """Values per token that one norm of a decoder layer reads."""
    if ".layers." not in f".{name}" or not type(module).__name__.endswith("Norm"):
        return 0
    repeats = {"q_norm": heads, "k_norm": kv_heads}.get(name.rsplit(".", 1)[-1], 1)
    return repeats * int(module.weight.numel())  # type: ignore[operator]
