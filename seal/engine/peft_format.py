"""LoRA adapters in memory and on disk, in PEFT's format.

`peft.PeftModel` and vLLM load what this engine exports.

An adapter directory holds `adapter_config.json` (PEFT's `LoraConfig`) and
`adapter_model.safetensors` with one pair per target layer: `base_model.model.<layer>.lora_A.weight`
of shape (r, in) and `...lora_B.weight` of shape (out, r). The update of a layer is alpha / r * B A
(Hu et al., arXiv 2106.09685).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from seal.errors import InvalidInput, NotFound

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A_SUFFIX = ".lora_A.weight"
_B_SUFFIX = ".lora_B.weight"


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one layer's update."""

    a: torch.Tensor
    """(r, in)."""
    b: torch.Tensor
    """(out, r)."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter in memory."""

    base_model: str
    """Name of the base model it belongs to."""
    rank: int
    alpha: float
    pairs: Mapping[str, LoraPair]
    """Layer name (as in `model.named_modules()`) -> factors."""

    @property
    def scale(self) -> float:
        """The update's factor: alpha / r."""
        return self.alpha / self.rank

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Last part of the layers' names, sorted: PEFT's `target_modules`."""
        return tuple(sorted({name.rsplit(".", 1)[-1] for name in self.pairs}))


def concatenate(lower: Adapter, upper: Adapter) -> Adapter:
    """Put two adapters side by side along the rank.

    One adapter whose update is the sum of both (performance.md, point 5). The scales are folded
    into B, so the result has alpha = r. Layers that only one of them has get zeros for the other.
    """
    if lower.base_model != upper.base_model:
        raise InvalidInput(
            f"adapter for base model {upper.base_model!r} cannot sit on a policy for "
            f"{lower.base_model!r}",
            field="policy",
            remedy="train both on the same base model",
        )
    rank = lower.rank + upper.rank
    pairs: dict[str, LoraPair] = {}
    for name in sorted(set(lower.pairs) | set(upper.pairs)):
        known = lower.pairs.get(name) or upper.pairs[name]
        a = known.a.new_zeros(rank, known.a.shape[1])
        b = known.b.new_zeros(known.b.shape[0], rank)
        if (pair := lower.pairs.get(name)) is not None:
            a[: lower.rank], b[:, : lower.rank] = pair.a, pair.b * lower.scale
        if (pair := upper.pairs.get(name)) is not None:
            a[lower.rank :], b[:, lower.rank :] = pair.a, pair.b * upper.scale
        pairs[name] = LoraPair(a, b)
    return Adapter(lower.base_model, rank, float(rank), pairs)


def save_adapter(adapter: Adapter, directory: Path) -> None:
    """Write a PEFT directory.

    The caller publishes it (`seal.artifacts`); this function only writes the two files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, pair in adapter.pairs.items():
        tensors[f"{_PREFIX}{name}{_A_SUFFIX}"] = pair.a.contiguous()
        tensors[f"{_PREFIX}{name}{_B_SUFFIX}"] = pair.b.contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": adapter.base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "target_modules": list(adapter.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (directory / CONFIG_FILE).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def load_adapter(directory: Path) -> Adapter:
    """Read a PEFT directory.

    Raises NotFound for a missing file, InvalidInput for what is no plain LoRA (DoRA, rsLoRA,
    per-layer ranks) or does not fit together.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise NotFound(
                f"{directory} holds no {name}",
                field="adapter",
                remedy="give a PEFT adapter directory",
            )
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(directory / WEIGHTS_FILE)
    except (json.JSONDecodeError, SafetensorError) as error:
        raise InvalidInput(
            f"adapter in {directory} cannot be read: {error}",
            field="adapter",
            remedy="export it again",
        ) from error
    _refuse_unsupported(config, directory)
    rank = int(config["r"])
    pairs: dict[str, LoraPair] = {}
    for key in tensors:
        if not key.endswith(_A_SUFFIX):
            continue
        name = key.removeprefix(_PREFIX).removesuffix(_A_SUFFIX)
        a, b = tensors[key], tensors.get(f"{_PREFIX}{name}{_B_SUFFIX}")
        if b is None or a.shape[0] != rank or b.shape[1] != rank:
            raise InvalidInput(
                f"layer {name} of the adapter in {directory} does not have two factors of rank "
                f"{rank}",
                field="adapter",
                remedy="export it again",
            )
        pairs[name] = LoraPair(a, b)
    if 2 * len(pairs) != len(tensors):
        raise InvalidInput(
            f"adapter in {directory} holds tensors that are no LoRA factors",
            field="adapter",
            remedy="export it with bias='none'",
        )
    return Adapter(str(config["base_model_name_or_path"]), rank, float(config["lora_alpha"]), pairs)


def _refuse_unsupported(config: Mapping[str, object], directory: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise InvalidInput(
            f"{directory} is a {config.get('peft_type')} adapter",
            field="adapter",
            remedy="only LoRA is supported",
        )
    for option in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(option):
            raise InvalidInput(
                f"adapter in {directory} uses {option}",
                field="adapter",
                remedy="train it without that option",
            )
    if config.get("bias", "none") != "none":
        raise InvalidInput(
            f"adapter in {directory} trains biases",
            field="adapter",
            remedy="train it with bias='none'",
        )
