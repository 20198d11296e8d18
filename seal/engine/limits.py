"""What a loaded model can take at all, for callers that want to know before they ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seal.engine.precision import dtype_name
from seal.settings import EngineSettings

if TYPE_CHECKING:
    from seal.engine.model import FrozenModel


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """Bounds of every request to one engine."""

    max_positions: int
    """Positions that the model has; 0 if it does not say."""
    max_row_tokens: int
    """Longest training row, tokens."""
    max_rank: int
    """Largest LoRA rank."""
    target_modules: tuple[str, ...]
    """Names of the layers that can have an adapter, sorted."""
    dtype: str
    """Compute type."""
    device: str
    """Type of the device: cpu, cuda."""


def limits_of(model: FrozenModel, settings: EngineSettings) -> ModelLimits:
    """The bounds of a model under an engine's settings."""
    return ModelLimits(
        max_positions=int(getattr(model.config, "max_position_embeddings", None) or 0),
        max_row_tokens=settings.max_row_tokens,
        max_rank=settings.max_rank,
        target_modules=tuple(sorted({name.rsplit(".", 1)[-1] for name in model.layers})),
        dtype=dtype_name(model.dtype),
        device=model.device.type,
    )
