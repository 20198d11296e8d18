"""How vLLM is started: its arguments, as plain data.

Its defaults are not ours:
- max_loras is 1, so that adapters would run one after another;
- max_lora_rank is one of a few numbers, and every adapter takes the room of that rank;
- an adapter that was unloaded keeps its slot in memory until another needs it, so that
  max_cpu_loras must leave a margin over those at work;
- without target modules every layer that can have an adapter gets room for one;
- keys and values take nine tenths of a machine's memory on a CPU;
- prompts are cut or sampled by what the model's generation config recommends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seal.errors import InvalidInput
from seal.limits import VLLM_RANKS, vllm_rank
from seal.remedies import engine_setting

if TYPE_CHECKING:
    from seal.settings import EngineSettings
    from seal.settings.vllm import VllmSettings

CPU_CACHE_BYTES = 1 << 30
"""Keys and values on a CPU where nothing is said."""
CPU_STEP_TOKENS = 1024
"""Tokens of one step on a CPU, where vLLM gathers the adapter's weights once per token."""
OLDEST: dict[str, tuple[int, int]] = {"cpu": (0, 32), "cuda": (0, 33)}
"""The first vLLM that is good enough, by device: on GPUs for production."""


@dataclass(frozen=True, kw_only=True)
class VllmArguments:
    """Arguments of vLLM's AsyncEngineArgs, under its names."""

    model: str
    dtype: str
    """`bfloat16` or `float32`."""
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int | None
    kv_cache_memory_bytes: int | None
    max_lora_rank: int
    max_loras: int
    max_cpu_loras: int
    lora_target_modules: tuple[str, ...]
    enable_lora: bool = True
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    trust_remote_code: bool = False
    generation_config: Literal["vllm"] = "vllm"
    """Not the model's recommendations: temperature and top_p are the request's."""
    logprobs_mode: Literal["raw_logprobs"] = "raw_logprobs"
    """Of the model itself: at temperature 1, before top_p."""
    disable_log_stats: bool = True
    use_tqdm_on_load: bool = False
    worker_extension_cls: str = "seal.vllm.worker.ForgetfulWorker"


def arguments(
    directory: Path,
    engine: EngineSettings,
    own: VllmSettings,
    *,
    dtype: str,
    target_modules: tuple[str, ...],
) -> VllmArguments:
    """What vLLM is started with. `target_modules`: the layers that the model has, of those wanted.

    Raises InvalidInput for a largest rank that vLLM cannot hold.
    """
    on_cpu = device_type(engine.device) == "cpu"
    adapters = own.vllm_adapters + on_cpu  # the neutral one, see `adapters`
    cache_bytes = own.vllm_cache_bytes or (CPU_CACHE_BYTES if on_cpu else None)
    return VllmArguments(
        model=str(directory),
        dtype=dtype,
        max_model_len=own.vllm_context_tokens or None,
        max_num_seqs=max(engine.generation_rows, engine.evaluation_rows),
        max_num_batched_tokens=CPU_STEP_TOKENS if on_cpu else None,
        kv_cache_memory_bytes=cache_bytes,
        max_lora_rank=rank_bucket(engine.max_rank),
        max_loras=adapters,
        max_cpu_loras=adapters + margin(own.vllm_adapters),
        lora_target_modules=target_modules,
        enforce_eager=on_cpu,
    )


def margin(adapters: int) -> int:
    """Adapters that stay loaded beside those at work: unloading one frees nothing at once."""
    return max(2, adapters)


def rank_bucket(rank: int) -> int:
    """The smallest max_lora_rank that holds a rank. Raises InvalidInput above the largest."""
    if (bucket := vllm_rank(rank)) is not None:
        return bucket
    raise InvalidInput(
        f"vLLM holds adapters of rank {VLLM_RANKS[-1]} at most, {rank} is asked for",
        field="engine.maxRank",
        remedy=f"set {engine_setting('max_rank', VLLM_RANKS[-1])}, or use the engine backend",
    )


def device_type(device: str) -> str:
    """`cuda` of `cuda:0`."""
    return device.partition(":")[0]


def check_version(version: str, *, device: str) -> None:
    """Raise InvalidInput for a vLLM that is too old on a device, or a device that is none of its.

    `device`: what vLLM was built for.
    """
    oldest = OLDEST.get(device)
    if oldest is None:
        raise InvalidInput(
            f"vLLM runs on {device!r} here, which is not supported",
            field="engine.device",
            remedy=f"use one of {', '.join(OLDEST)}",
        )
    numbers = version.split("+")[0].split(".")[:2]
    if not all(number.isdigit() for number in numbers) or tuple(map(int, numbers)) < oldest:
        raise InvalidInput(
            f"vLLM {version} is too old for {device}",
            field="backend",
            remedy=f"install vllm {'.'.join(map(str, oldest))} or newer",
        )
