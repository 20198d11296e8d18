"""The type that the engine computes in.

bfloat16 halves the bytes of every weight, and where a processor multiplies it in hardware it is
several times as fast as float32. Where it does not (x86 without AVX512-BF16 or AMX, which is most
processors before 2023), torch's bfloat16 products are emulated and far slower than float32: on one
such machine (2 cores, AVX2) 1.3 GFLOP/s against 140.
"""

from __future__ import annotations

import torch

from seal.settings import ComputeType

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def compute_dtype(wanted: ComputeType, device: str) -> torch.dtype:
    """The type that a setting means on a device, which must exist.

    `auto` is bfloat16 where it is multiplied in hardware, else float32.
    """
    if wanted == "auto":
        return torch.bfloat16 if multiplies_bfloat16(torch.device(device)) else torch.float32
    return DTYPES[wanted]


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` or `float32`."""
    return str(dtype).removeprefix("torch.")


def multiplies_bfloat16(device: torch.device) -> bool:
    """True if the device has matrix instructions for bfloat16.

    They are avx512_bf16 or amx_bf16 on x86, bf16 on ARM, and CUDA's from Ampere on.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return any(
        present is True and name.endswith("bf16")
        for name, present in torch.cpu.get_capabilities().items()
    )
