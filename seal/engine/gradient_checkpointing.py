"""Gradient checkpointing.

A decoder layer keeps its input alone and is computed again when the backward pass comes to it.
Activations of one layer instead of all are held, for one more forward pass (Chen et al., arXiv
1604.06174). The slot linears and the attention read what the engine has put into its holders for
the length of a forward pass; the second computation runs in the backward pass, when the holders are
empty, so it puts back what was there in the first. Gradients of A and B are added by the backward
of the first computation's nodes alone: the second only makes their saved tensors anew, so nothing
is added twice.

What counts as saved is what a node hands to `save_for_backward`; a tensor kept as an attribute of
`ctx` stays in memory all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


class GradientCheckpointing:
    """The switch of one model's layers.

    `restore()` is called in the forward pass and says how to bring its state back later.
    """

    def __init__(
        self, model: nn.Module, restore: Callable[[], Callable[[], AbstractContextManager[None]]]
    ) -> None:
        self._on = False
        self._restore = restore
        for module in model.modules():
            if isinstance(
                module, GradientCheckpointingLayer
            ):  # transformers' mark of a layer that may be computed twice
                module.forward = self._wrapped(module.forward)

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        """Checkpoint the forward passes of the block, or not."""
        before, self._on = self._on, on
        try:
            yield
        finally:
            self._on = before

    def _wrapped(self, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def checkpointed(*arguments: Any, **options: Any) -> torch.Tensor:
            if not (self._on and torch.is_grad_enabled()):
                return forward(*arguments, **options)
            state = self._restore()

            def run(*again: Any) -> torch.Tensor:
                with state():
                    return forward(*again, **options)

            # no dropout in a frozen model: there is no random state to restore
            return checkpoint(run, *arguments, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]

        return checkpointed
