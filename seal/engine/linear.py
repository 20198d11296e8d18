"""The slot linear: a frozen `nn.Linear` that adds a shared policy adapter and one adapter per slot.

    y = x W^T + b  +  (x P_A^T) P_B^T  +  (x A_slot^T) B_slot^T

What is added is not the layer's own: the engine sets `Route` for the length of one forward pass.
The backward pass is written by hand: the base weight and the policy are frozen, so only the
gradients of x and of the slots' A and B are formed, the latter straight into the optimiser's
float32 buffer. The factors come with their scale alpha / r folded into B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from seal.engine.kernels import SlotProducts


@dataclass(frozen=True)
class Factors:
    """Stacked factors of one layer, in the compute type."""

    a: torch.Tensor
    """(G, r, in)."""
    b: torch.Tensor
    """(G, out, r), times alpha / r."""
    grad_a: torch.Tensor | None = None
    """(G, r, in) float32 view of the gradient buffer; None when nothing is trained."""
    grad_b: torch.Tensor | None = None
    """(G, out, r) float32: the gradient of B times alpha / r."""


@dataclass(frozen=True)
class Route:
    """Which adapters apply to which tokens in one forward pass."""

    products: SlotProducts
    slots: Mapping[str, Factors]
    """Layer name -> the slots' factors; empty when no slot is in use."""
    policy: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    """Layer name -> ((r, in), (out, r) with its scale folded in); empty for the base model."""


class FrozenRoute(Protocol):
    """The route of a forward pass without gradients (`seal.engine.routes`)."""

    def add(self, layer: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add to y (1, T, out), in place, what the layer's adapters make of x (1, T, in)."""


class RouteHolder:
    """The route of the forward pass that is running.

    Every slot linear of a model shares one holder.
    """

    def __init__(self) -> None:
        self.route: Route | FrozenRoute | None = None


class SlotLinear(nn.Module):
    """Takes the place of one frozen `nn.Linear`."""

    def __init__(self, linear: nn.Linear, name: str, holder: RouteHolder) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach(), requires_grad=False)
        self.bias = (
            None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        )
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.name = name
        self._holder = holder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, T, in) -> (1, T, out)."""
        route = self._holder.route
        if route is not None and not isinstance(route, Route):
            return route.add(self.name, x, F.linear(x, self.weight, self.bias))
        if route is None or not (self.name in route.slots or self.name in route.policy):
            return F.linear(x, self.weight, self.bias)
        arguments = (
            x,
            self.weight,
            self.bias,
            route.slots.get(self.name),
            route.policy.get(self.name),
            route,
        )
        return _SlotLinearFunction.apply(*arguments)  # type: ignore[no-any-return,no-untyped-call]


class _SlotLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        factors: Factors | None,
        policy: tuple[torch.Tensor, torch.Tensor] | None,
        route: Route,
    ) -> torch.Tensor:
        y = F.linear(x, weight, bias)
        x2, y2 = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        if policy is not None:
            y2.addmm_(x2 @ policy[0].t(), policy[1].t())
        xa: torch.Tensor | None = None
        if factors is not None:
            xa = route.products.multiply(x2, factors.a.transpose(1, 2))
            route.products.add(y2, xa, factors.b.transpose(1, 2))
        ctx.save_for_backward(x, weight, xa)
        ctx.factors, ctx.policy, ctx.route = factors, policy, route
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, xa = ctx.saved_tensors
        factors, policy, route = ctx.factors, ctx.policy, ctx.route
        dy2 = grad_outputs[0].reshape(-1, weight.shape[0])
        x2 = x.reshape(-1, x.shape[-1])
        dx2 = dy2 @ weight
        if policy is not None:
            dx2.addmm_(dy2 @ policy[1], policy[0])
        if factors is not None:
            dxa = route.products.multiply(dy2, factors.b)
            route.products.add(dx2, dxa, factors.a)
            if factors.grad_a is not None and factors.grad_b is not None:
                route.products.reduce(dxa, x2, factors.grad_a)
                route.products.reduce(dy2, xa, factors.grad_b)
        return dx2.view_as(x), None, None, None, None, None
