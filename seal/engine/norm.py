"""RMSNorm with a hand-written backward pass for a frozen weight.

transformers writes RMSNorm as a chain of elementwise operations, and autograd keeps and walks every
link of it in float32: a fifth of a training step of the 135M model on a CPU. Here the forward pass
is the same arithmetic in the same precision; the backward pass forms the input's gradient only, in
the compute type:

    y = w x s,  s = 1 / sqrt(mean(x^2) + eps)        dx = s (w dy) - x s^3 / d sum(w dy x)

Llama rounds x s to the compute type before it multiplies by w. Gemma multiplies by 1 + w in float32
and rounds once: in bfloat16 1 + w would lose most of a small w.

On CUDA, where steps wait for the host, torch's own kernel does each way in one launch in place of 8
and 10, unless the weight is in float32. It multiplies by w in float32 and rounds once.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

AGREEMENT = 1e-5
"""Largest difference of a form to the module that is replaced, in float32, over the largest
output."""


class FrozenRMSNorm(nn.Module):
    """y = weight * x / rms(x) over the last dimension.

    With a weight in the compute type x / rms(x) is rounded before the product, with one in float32
    after it; on CUDA always after it.
    """

    def __init__(self, weight_d: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_d, requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        if x.is_cuda and x.dtype == self.weight.dtype:
            return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        return _RMSNormFunction.apply(x, self.weight, self.epsilon)  # type: ignore[no-any-return,no-untyped-call]


class _RMSNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_d: torch.Tensor, epsilon: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight_d, inverse)
        y: torch.Tensor = (x * inverse).to(weight_d.dtype).mul_(weight_d)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight_d, inverse = ctx.saved_tensors
        dx = (grad_outputs[0] * weight_d).to(x.dtype)
        along = (dx * x).sum(-1, keepdim=True, dtype=torch.float32)
        dx.mul_(inverse.to(x.dtype))
        dx.addcmul_(x, (along * inverse.pow(3) / x.shape[-1]).to(x.dtype), value=-1.0)
        return dx, None, None


@torch.no_grad()
def frozen_norm(module: nn.Module) -> FrozenRMSNorm | None:
    """The same norm with the fast backward pass, if `module` is an RMSNorm.

    It may multiply by `weight` or, as Gemma's, by 1 + `weight`. What a class does is not read off
    its name: both forms are tried, and None says that neither agrees. They are tried in float32 and
    with weights chosen for it: with the model's own, in bfloat16, w and 1 + w are alike where w is
    large.
    """
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if (
        not type(module).__name__.endswith("RMSNorm")
        or weight is None
        or weight.dim() != 1
        or not isinstance(epsilon, float)
    ):
        return None
    probe = copy.deepcopy(module).to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(weight.shape[0], generator=generator) - 0.5
    sample = torch.randn(8, weight.shape[0], generator=generator)
    probe.weight.data = chosen
    wanted = probe(sample)
    for added in (0.0, 1.0):
        tried = FrozenRMSNorm(chosen + added, epsilon)(sample)
        if float((tried - wanted).abs().max()) <= AGREEMENT * float(wanted.abs().max()):
            own = weight.detach()
            return FrozenRMSNorm(own.float() + 1 if added else own, epsilon)
    return None
