"""Memory that a training step frees is kept for the next step.

glibc returns large blocks to the kernel at every free, and the kernel zeroes every page of the next
one: on 2 cores a quarter of a training step went into page faults. With these settings (mallopt(3))
the process keeps what it has once used, and holds it until it ends. Other C libraries do as they
do.

The price is a higher peak. All tensors lie in one heap, and a block freed between two kept ones
stays there as a hole until something fits into it: a pass takes up to 1.39 times the bytes of its
tensors in float32, 1.72 times in bfloat16; `memory.py` counts that as holes. Blocks of a mapping of
their own would leave no holes, but it takes a threshold of 1 to 2 MiB (M_MMAP_THRESHOLD) to reach
the tensors that matter, and with it nearly every block goes through page faults again; 32 MiB, the
largest that glibc takes, leaves the peak as it is.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Parameters of mallopt in glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Set up the C allocator for this process; False where it is not glibc.

    Call it before large tensors are made. Arenas of threads other than the first cannot hold large
    blocks, hence one arena for all. torch asks for huge pages (`THP_MEM_ALLOC_ENABLE`, read at its
    first allocation) for blocks of 2 MB and more.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
