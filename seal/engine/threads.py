"""Which threads of a process compute in parallel: the engine's, and nobody else beside it.

Every thread that runs a parallel operation of torch gets OpenMP threads of its own. As soon as a
process has more of them than cores, GNU's OpenMP no longer lets them wait for the next operation
but puts them to sleep (libgomp, `gomp_throttled_spin_count`), and a training step is thousands of
short operations: on 2 cores it took 1.25 times as long once the main thread had only loaded the
model. So a process with an engine computes serially everywhere else, and what needs all cores for a
while does so in a thread of its own, with which its OpenMP threads end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from seal.engine.available import cpu_limit

Result = TypeVar("Result")


def threads_for(cores: int, limit: float | None, environment: Mapping[str, str]) -> int:
    """Threads to compute with on so many cores, of which a container's limit grants a share.

    torch counts the node's cores, and more threads than a pod's quota buys take turns: three
    engines with two threads each on two cores took 40 times as long as with one.
    """
    if limit is None or environment.get("OMP_NUM_THREADS"):
        return cores
    return max(1, min(cores, int(limit)))


ALL_THREADS = threads_for(torch.get_num_threads(), cpu_limit(), os.environ)
"""The cores that this process may use, or OMP_NUM_THREADS."""


def compute_serially() -> None:
    """Let the calling thread and those that begin later compute with one thread.

    Those that already compute keep what they have.
    """
    torch.set_num_threads(1)


def compute_with(threads: int) -> None:
    """Let the calling thread compute with so many threads; 0 takes all.

    What threads that begin later compute with stays as it is.
    """
    # At its first use in a thread, torch sets the default: that must not happen later
    torch.get_num_threads()
    default = _in_new_thread(torch.get_num_threads)
    torch.set_num_threads(threads or ALL_THREADS)
    _in_new_thread(lambda: torch.set_num_threads(default))


def in_parallel(function: Callable[[], Result]) -> Result:
    """Result of a function that runs on a thread of its own and may compute with all.

    Raises what the function raises.
    """

    def run() -> Result:
        compute_with(0)
        return function()

    return _in_new_thread(run)


def _in_new_thread(function: Callable[[], Result]) -> Result:
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(function).result()
