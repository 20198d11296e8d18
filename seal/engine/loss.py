"""Cross-entropy with the frozen head, on target positions only and in chunks, so that logits of (tokens, vocabulary) never exist at once.

Forward and gradient are formed in one pass over the chunks: the head is frozen, so the gradient of the hidden states is
(softmax - one_hot) W times each target's weight, and nothing has to be kept for later.
"""

from __future__ import annotations

import torch

CHUNK_TARGETS = 128
"""Targets per chunk; 128 x 49,152 logits in float32 are 25 MB."""


def cross_entropy_with_gradient(
    hidden_K_d: torch.Tensor, head_V_d: torch.Tensor, targets_K: torch.Tensor, weights_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per-target losses (K,) in float32 nats, unweighted, and the gradient (K, d) of sum(weights * losses) by the hidden states."""
    losses_K = torch.empty(len(targets_K), dtype=torch.float32, device=hidden_K_d.device)
    gradient_K_d = torch.empty_like(hidden_K_d)
    for start in range(0, len(targets_K), CHUNK_TARGETS):
        part = slice(start, start + CHUNK_TARGETS)
        hidden, targets = hidden_K_d[part], targets_K[part]
        log_probabilities = torch.log_softmax(hidden @ head_V_d.t(), dim=-1, dtype=torch.float32)
        losses_K[part] = -log_probabilities.gather(1, targets[:, None]).squeeze(1)
        dlogits = log_probabilities.exp_()
        dlogits[torch.arange(len(targets), device=targets.device), targets] -= 1.0
        dlogits.mul_(weights_K[part, None])
        gradient_K_d[part] = dlogits.to(hidden.dtype) @ head_V_d
    return losses_K, gradient_K_d
