"""How fast this machine multiplies: the GEMM peak that figures are given against."""

from __future__ import annotations

import time

import torch

from seal.engine.threads import in_parallel

MAX_SECONDS = 5.0
"""No further product is begun after so long: where bfloat16 is emulated, one takes many seconds."""


def measure_gemm_peak(
    *, dtype: torch.dtype, size: int = 2048, repeats: int = 10, device: str = "cpu"
) -> float:
    """Best of `repeats` square products with all threads, in TFLOP/s.

    2 * size^3 operations each, of the given type and size.
    """
    return in_parallel(lambda: _measure(dtype, size, repeats, device))


def _measure(dtype: torch.dtype, size: int, repeats: int, device: str) -> float:
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    best, begun = float("inf"), time.perf_counter()
    for _ in range(repeats + 1):
        started = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for a device that works asynchronously
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended - begun > MAX_SECONDS:
            break
    return 2 * size**3 / best / 1e12
