"""What a model's configuration shows, before a single weight is read.

For refusing at once what the engine would refuse after minutes of loading, and for estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from seal.engine.architecture import empty_model, read_config
from seal.engine.sizes import ModelSize, size_of


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Widths and names of a model."""

    positions: int
    """Tokens of the longest text; 0 if the configuration does not say."""
    targets: frozenset[str]
    """Kinds of layers that may get an adapter."""
    size: ModelSize
    """Widths, for the memory model, in bfloat16."""
    base_parameters: int
    """Weights of the base model."""


def read_shape(directory: Path, *, name: str) -> ModelShape:
    """The shape of a transformers directory.

    Raises InvalidInput for a configuration that cannot be read or that the engine does not take.
    """
    config = read_config(directory, name=name)
    model = empty_model(config, name=name, dtype=torch.bfloat16)
    size = size_of(model)
    return ModelShape(
        positions=int(getattr(config, "max_position_embeddings", 0) or 0),
        targets=frozenset(target.rsplit(".", 1)[-1] for target in size.targets),
        size=size,
        base_parameters=sum(weight.numel() for weight in model.parameters()),
    )
