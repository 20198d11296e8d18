"""Cross-entropy with the frozen head, on target positions only and in chunks.

So logits of (tokens, vocabulary) never exist at once. Forward and gradient are formed in one pass
over the chunks: the head is frozen, so the gradient of the hidden states is (softmax - one_hot) W
times each target's weight, and nothing has to be kept for later. The target's own term (p - 1)
W[target] is added apart, because p - 1 of a well-learnt token would drown in the compute type's
rounding of p.
"""

from __future__ import annotations

import torch

CHUNK_TARGETS = 256
"""Targets per product with the head; 256 x 49,152 logits in bfloat16 are 25 MB."""
SOFTMAX_VALUES = 2**19
"""Logits per softmax: 2 MB in float32 stay in a core's cache while they are walked several
times."""


def cross_entropy_with_gradient(
    hidden_K_d: torch.Tensor,
    head_V_d: torch.Tensor,
    targets_K: torch.Tensor,
    weights_K: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each target's loss and the gradient by the hidden states.

    Losses (K,) in float32 nats, unweighted; the gradient (K, d) is that of sum(weights * losses).
    """
    losses_K = torch.empty(len(targets_K), dtype=torch.float32, device=hidden_K_d.device)
    gradient_K_d = torch.empty_like(hidden_K_d)
    for start in range(0, len(targets_K), CHUNK_TARGETS):
        part = slice(start, start + CHUNK_TARGETS)
        hidden, targets = hidden_K_d[part], targets_K[part]
        logits = hidden @ head_V_d.t()
        losses_K[part], miss = _softmax_in_place(logits, targets)
        gradient = logits @ head_V_d
        gradient.addcmul_(head_V_d[targets], miss[:, None].to(hidden.dtype), value=-1.0)
        gradient_K_d[part] = gradient.mul_(weights_K[part, None].to(hidden.dtype))
    return losses_K, gradient_K_d


def _softmax_in_place(
    logits_K_V: torch.Tensor, targets_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits into probabilities with 0 at the targets.

    Returns losses -log p (K,) and 1 - p (K,) of the targets, in float32.
    """
    device = logits_K_V.device
    losses_K = torch.empty(len(targets_K), dtype=torch.float32, device=device)
    size = max(1, SOFTMAX_VALUES // logits_K_V.shape[1]) if device.type == "cpu" else len(targets_K)
    for start in range(0, len(targets_K), size):
        part = slice(start, start + size)
        log_p = torch.log_softmax(logits_K_V[part], dim=-1, dtype=torch.float32)
        losses_K[part] = -log_p.gather(1, targets_K[part, None]).squeeze(1)
        logits_K_V[part] = log_p.exp_()
    logits_K_V.scatter_(1, targets_K[:, None], 0.0)
    return losses_K, -torch.expm1(-losses_K)
