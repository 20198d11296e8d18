"""From the host to the device without waiting for it.

A copy from ordinary memory lets the host wait until the device has done all that was queued before
it; meanwhile nothing more is queued, and a GPU that has caught up stands still. A copy from pinned
memory is queued like any other work. What goes the other way is waited for by nature, so a step of
training or decoding reads once, after everything it needs is queued.
"""

from __future__ import annotations

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on the device; the same tensor where that is the host.

    torch keeps the pinned copy until the device has read it.
    """
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
