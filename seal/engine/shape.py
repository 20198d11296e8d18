"""What a model's configuration shows, before a single weight is read.

For refusing at once what the engine would refuse after minutes of loading, and for estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seal.engine.architecture import empty_model, read_config
from seal.engine.available import usable_bytes
from seal.engine.budget import MemoryBudget
from seal.engine.precision import compute_dtype
from seal.engine.sizes import ModelSize, size_of
from seal.model_files import has_chat_template
from seal.settings import ComputeType, EngineSettings


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Widths and names of a model."""

    positions: int
    """Tokens of the longest text; 0 if the configuration does not say."""
    targets: frozenset[str]
    """Kinds of layers that may get an adapter."""
    size: ModelSize
    """Widths, for the memory model."""
    weights: int
    """Numbers that the base model has."""
    has_chat_template: bool
    """Whether it can be asked in a chat."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """What an engine would take, and what there is."""

    needed_bytes: int
    limit_bytes: int
    slots: int
    """Adapters trained at once: the setting, or what fits."""


def read_shape(
    directory: Path, *, name: str, dtype: ComputeType = "bfloat16", device: str = "cpu"
) -> ModelShape:
    """The shape of a transformers directory, as computed in `dtype` on `device`.

    Raises InvalidInput for a configuration that cannot be read or that the engine does not take.
    """
    config = read_config(directory, name=name)
    model = empty_model(config, name=name, dtype=compute_dtype(dtype, device))
    size = size_of(model)
    return ModelShape(
        positions=int(getattr(config, "max_position_embeddings", 0) or 0),
        targets=frozenset(target.rsplit(".", 1)[-1] for target in size.targets),
        size=size,
        weights=sum(weight.numel() for weight in model.parameters()),
        has_chat_template=has_chat_template(directory),
    )


def memory_need(shape: ModelShape, settings: EngineSettings) -> MemoryNeed:
    """What an engine of these settings takes at most, the base model included.

    Raises InvalidInput naming `engine.slots` where it would not start.
    """
    limit = settings.memory_bytes or usable_bytes(settings.device)
    budget = MemoryBudget(shape.size, settings, limit)
    return MemoryNeed(needed_bytes=budget.at_start.total, limit_bytes=limit, slots=budget.slots)
