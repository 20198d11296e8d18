"""vLLM as the backend of a generator or an evaluator: the machine's matter, no part of a run."""

from __future__ import annotations

from pydantic import Field

from seal.settings.base import Settings
from seal.settings.training import ALL_PROJECTIONS


class VllmSettings(Settings):
    """What vLLM is told beside the engine's settings.

    Of those it follows `dtype`, `device`, `max_rank`, `generation_rows`, `evaluation_rows`,
    `max_queue` and `stall_seconds`; on a CPU it takes the cores that the process may use.
    """

    vllm_adapters: int = Field(default=8, ge=1, le=1024)
    """Adapters in one batch (vLLM's max_loras); each has room of the largest rank in all its
    layers. An evaluation on top of a policy adapter needs two."""
    vllm_target_modules: tuple[str, ...] = Field(default=ALL_PROJECTIONS, min_length=1)
    """Layers that can have an adapter; one that has others is refused. Fewer are faster and take
    less memory."""
    vllm_adapter_directory: str = ""
    """Where adapters are put for vLLM, which loads them from a path only: memory (a tmpfs) with
    room for twice `vllm_adapters` of them. Empty: /dev/shm if it has that, else the system's
    temporary directory."""
    vllm_cache_bytes: int = Field(default=0, ge=0, le=2**50)
    """Bytes for keys and values. 0: on a GPU what the model leaves of 92 % of its memory, vLLM's
    own default, on a CPU 1 GiB."""
    vllm_context_tokens: int = Field(default=0, ge=0, le=16_777_216)
    """Longest prompt with its answer, tokens; 0: the model's positions. Keys and values of one such
    text must fit into `vllm_cache_bytes`."""
