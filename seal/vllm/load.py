"""From a model's directory to a backend that serves."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seal.engine import read_outline
from seal.engine.bank import parameters_per_rank
from seal.engine.precision import DTYPES, compute_dtype, dtype_name
from seal.errors import InvalidInput, PreconditionFailed
from seal.vllm.adapters import AdapterFiles, place_for
from seal.vllm.asks import Decoder
from seal.vllm.backend import VllmBackend
from seal.vllm.launch import arguments, device_type, margin
from seal.vllm.model import VllmModel

if TYPE_CHECKING:
    from seal.bases import BaseReference
    from seal.settings import EngineSettings
    from seal.settings.vllm import VllmSettings

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere
    "VLLM_CONFIGURE_LOGGING": "0",  # its lines go where the process's own go
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
}
"""What vllm reads from the environment when it is imported."""


def load_vllm(
    directory: Path,
    *,
    name: str,
    settings: EngineSettings,
    own: VllmSettings,
    base: BaseReference | None = None,
) -> VllmBackend:
    """Start vLLM on a transformers directory; `name` and `base` as for `Engine.load`.

    vLLM starts its workers by importing the main module again, which must therefore do nothing
    unless it is `__main__`.

    Raises:
        InvalidInput: the model, a setting or the installed vLLM does not fit.
        PreconditionFailed: vLLM is not installed.

    """
    outline = read_outline(directory, name=name, base=base)
    has = {layer.rsplit(".", 1)[-1] for layer in outline.layers}
    if unknown := sorted(set(own.vllm_target_modules) - has):
        raise InvalidInput(
            f"model {name!r} has no layers {', '.join(unknown)}",
            field="vllm_target_modules",
            remedy=f"choose from {', '.join(sorted(has))}",
        )
    if own.vllm_context_tokens:
        outline = replace(outline, positions=own.vllm_context_tokens)
    dtype = dtype_name(compute_dtype(settings.dtype, settings.device))
    launch = arguments(
        directory, settings, own, dtype=dtype, target_modules=own.vllm_target_modules
    )
    kept = margin(own.vllm_adapters)
    per_rank = parameters_per_rank(outline.layers, launch.lora_target_modules)
    one = settings.max_rank * per_rank * DTYPES[dtype].itemsize
    needed = (own.vllm_adapters + kept) * one

    async def start() -> Decoder:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        try:
            from seal.vllm import decoder  # imports vllm: not for who serves with the engine
        except ModuleNotFoundError as error:
            raise PreconditionFailed(
                f"the package {error.name} is not installed",
                field="backend",
                remedy="install vLLM into an environment of its own: "
                "pip install 'seal-kubernetes[vllm]'",
            ) from error
        return await decoder.start(launch, device=settings.device)

    return VllmBackend(
        start,
        VllmModel(
            outline=outline,
            dtype=dtype,
            max_rank=launch.max_lora_rank,
            max_adapters=launch.max_loras,
            target_modules=launch.lora_target_modules,
        ),
        settings,
        AdapterFiles(
            Path(own.vllm_adapter_directory) if own.vllm_adapter_directory else place_for(needed),
            kept=kept,
            dtype=dtype,
            neutral=outline.neutral_adapter() if device_type(settings.device) == "cpu" else None,
        ),
    )
