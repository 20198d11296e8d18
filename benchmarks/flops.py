"""Arithmetic that training cannot do without, counted from the model's shape.

What P3 holds against the measured GEMM peak. Counted, per real token: 4 FLOP per weight of the
frozen decoder linears (2 in the forward pass, 2 for the gradient of their input; a frozen weight
has no gradient of its own) and 6 FLOP per LoRA weight (2 forward, 4 backward). Per target position:
4 FLOP per weight of the head. Not counted: padding, attention scores, norms, softmax, the
optimiser, and whatever is computed twice. (The first layer's q, k and v need no gradient of their
input; that is 0.3 % of SmolLM2-135M and is counted.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from seal.settings import LoraSettings


@dataclass(frozen=True)
class Weights:
    """How many weights take part in one row's step."""

    linears: int
    """Weights of the decoder's linear layers."""
    lora: int
    """Weights of one adapter."""
    head: int
    """Weights of the output matrix."""

    def training_flop(self, *, tokens: int, targets: int) -> float:
        """FLOP of forward and backward for so many real tokens, `targets` of them predicted."""
        return float(tokens * (4 * self.linears + 6 * self.lora) + targets * 4 * self.head)


def count_weights(directory: Path, lora: LoraSettings) -> Weights:
    """Count from the model's config alone; no weight is loaded."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))  # type: ignore[no-untyped-call]
    linears = {
        name: module
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear)
    }
    adapted = [
        module for name, module in linears.items() if name.rsplit(".", 1)[-1] in lora.target_modules
    ]
    return Weights(
        linears=sum(module.weight.numel() for module in linears.values()),
        lora=sum(lora.rank * (module.in_features + module.out_features) for module in adapted),
        head=model.get_output_embeddings().weight.numel(),
    )
