"""The shape of an adapter, and how it is trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.limits import MAX_RANK, MAX_TARGET_MODULES
from seal.settings.base import FileSettings

ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_EPOCHS = 1000
"""Passes over the examples of one training."""


class LoraSettings(FileSettings):
    """Shape of a LoRA adapter (arXiv 2106.09685)."""

    rank: int = Field(default=32, ge=1, le=MAX_RANK)
    """Rank r."""
    alpha: float = Field(default=64.0, gt=0)
    """Scale numerator: the update is alpha / rank * B A."""
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, max_length=MAX_TARGET_MODULES
    )
    """Names of the linear layers that get an adapter, each once."""

    @model_validator(mode="after")
    def _targets_are_unique(self) -> Self:
        names = self.target_modules
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise InvalidInput(
                f"{twice!r} occurs twice", field="targetModules", remedy="name each layer once"
            )
        return self


class OptimizerSettings(FileSettings):
    """AdamW over the adapter's weights."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1.0)
    """Peak learning rate."""
    epochs: int = Field(default=10, ge=1, le=MAX_EPOCHS)
    """Passes over the examples."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Rows per optimiser step."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate over the steps; linear and cosine end at 0."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Global gradient norm is clipped to this; 0 is no clipping."""
    pad_to_tokens: int = Field(default=0, ge=0, le=32_768)
    """0 trains on each row's own tokens and one end-of-sequence token. Else shorter rows are filled
    up to so many tokens with end-of-sequence tokens that all count as targets, as the published
    system does with 2,048: for comparison, at its cost."""
