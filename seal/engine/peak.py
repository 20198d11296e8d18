"""How fast this machine multiplies: the measured bf16 GEMM peak, against which figures of the engine are given."""

from __future__ import annotations

import time

import torch

from seal.engine.threads import in_parallel


def measure_gemm_peak(*, size: int = 2048, repeats: int = 10, device: str = "cpu") -> float:
    """Best of `repeats` square bf16 products of the given size with all threads, in TFLOP/s (2 * size^3 operations each)."""
    return in_parallel(lambda: _measure(size, repeats, device))


def _measure(size: int, repeats: int, device: str) -> float:
    left = torch.randn(size, size, device=device).to(torch.bfloat16)
    right = torch.randn(size, size, device=device).to(torch.bfloat16)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for a device that works asynchronously
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e12
