"""Which threads of a process compute in parallel: the engine's, and nobody else beside it.

Every thread that runs a parallel operation of torch gets OpenMP threads of its own. As soon as a
process has more of them than cores, GNU's OpenMP no longer lets them wait for the next operation
but puts them to sleep (libgomp, `gomp_throttled_spin_count`), and a training step is thousands of
short operations: on 2 cores it took 1.25 times as long once the main thread had only loaded the
model. So a process with an engine computes serially everywhere else, and what needs all cores for a
while does so in a thread of its own, with which its OpenMP threads end.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

ALL_THREADS = torch.get_num_threads()
"""What torch would take: the cores, or OMP_NUM_THREADS."""


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


def in_parallel(function: Callable[[], Result], *, threads: int = 0) -> Result:
    """Result of a function that runs in a thread of its own with so many threads; 0 takes all.

    Raises what the function raises.
    """

    def run() -> Result:
        compute_with(threads)
        return function()

    return _in_new_thread(run)


def _in_new_thread(function: Callable[[], Result]) -> Result:
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(function).result()
