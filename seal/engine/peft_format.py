"""LoRA adapters in memory and on disk.

The format is PEFT's, so that `peft.PeftModel` and vLLM load what this engine exports: a directory
with `adapter_config.json` (PEFT's `LoraConfig`) and `adapter_model.safetensors` with one pair per
target layer: `base_model.model.<layer>.lora_A.weight` of shape (r, in) and `...lora_B.weight` of
shape (out, r). The update of a layer is alpha / r * B A (Hu et al., arXiv 2106.09685). Beside them
`base.json` says which weights the adapter belongs to; other programs do not look at it.

An adapter of another program is read exactly or refused: whatever its configuration says that could
mean another update than that is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from seal.bases import BaseReference
from seal.engine.precision import DTYPES
from seal.errors import InvalidInput, NotFound
from seal.model_files import ADAPTER_CONFIG

WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"
_PREFIX = "base_model.model."
_A_SUFFIX = ".lora_A.weight"
_B_SUFFIX = ".lora_B.weight"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_RANK = 1 << 16
_SAYS_NOTHING = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
        "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
        "eva_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
        "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip
"""Options that are read, or that say nothing about what the factors mean: which layers have some is
seen in the weights."""
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Initial weights that leave the base model as it is. PiSSA, OLoRA and their like subtract them
from the base, so that their factors belong to another one."""
_KNOWN_AS = MappingProxyType(
    {"use_dora": "DoRA", "alora_invocation_tokens": "aLoRA", "use_qalora": "QALoRA"}
)


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

    base: BaseReference
    """The base model that it belongs to."""
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

    def changes_nothing(self) -> bool:
        """Whether its scale is zero or every layer has a factor that is, as before any training."""
        return self.scale == 0 or not any(
            bool(pair.a.any()) and bool(pair.b.any()) for pair in self.pairs.values()
        )


def concatenate(lower: Adapter, upper: Adapter) -> Adapter:
    """Put two adapters side by side along the rank.

    One adapter whose update is the sum of both. The scales are folded into B, so the result has
    alpha = r. Layers that only one of them has get zeros for the other. Factors of two types become
    one that holds both: a float16 policy beneath bfloat16 factors makes float32 ones.
    """
    if not lower.base.same_as(upper.base):
        raise InvalidInput(
            f"adapter for base model {upper.base} cannot sit on a policy for {lower.base}",
            field="policy",
            remedy="train both on the same base model",
        )
    rank = lower.rank + upper.rank
    dtype = reduce(
        torch.promote_types,
        (
            factor.dtype
            for adapter in (lower, upper)
            for pair in adapter.pairs.values()
            for factor in (pair.a, pair.b)
        ),
    )
    pairs: dict[str, LoraPair] = {}
    for name in sorted(set(lower.pairs) | set(upper.pairs)):
        known = lower.pairs.get(name) or upper.pairs[name]
        a = known.a.new_zeros(rank, known.a.shape[1], dtype=dtype)
        b = known.b.new_zeros(known.b.shape[0], rank, dtype=dtype)
        for adapter, part in ((lower, slice(lower.rank)), (upper, slice(lower.rank, rank))):
            if (pair := adapter.pairs.get(name)) is not None:
                a[part], b[:, part] = pair.a, pair.b.to(dtype) * adapter.scale
        pairs[name] = LoraPair(a, b)
    return Adapter(lower.base, rank, float(rank), pairs)


def folded(adapter: Adapter, dtype: str) -> Adapter:
    """The same adapter in a compute type, `bfloat16` or `float32`, its scale folded into B before.

    That is what the engine computes with: alpha = r.
    """
    pairs = {
        name: LoraPair(pair.a.to(DTYPES[dtype]), (pair.b.float() * adapter.scale).to(DTYPES[dtype]))
        for name, pair in adapter.pairs.items()
    }
    return Adapter(adapter.base, adapter.rank, float(adapter.rank), pairs)


def save_adapter(adapter: Adapter, directory: Path) -> None:
    """Write a PEFT directory.

    The caller publishes it (`seal.artifacts`); this function only writes the files. The same
    adapter gives the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, pair in adapter.pairs.items():
        tensors[f"{_PREFIX}{name}{_A_SUFFIX}"] = pair.a.contiguous()
        tensors[f"{_PREFIX}{name}{_B_SUFFIX}"] = pair.b.contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    base = adapter.base
    config = {
        "base_model_name_or_path": base.found_at,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "revision": base.revision or None,
        "target_modules": list(adapter.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    _write_json(directory / ADAPTER_CONFIG, config)
    _write_json(directory / BASE_FILE, {"name": base.name, "sha256": base.sha256})


def _write_json(file: Path, content: Mapping[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(directory: Path) -> Adapter:
    """Read a PEFT directory.

    Raises NotFound for a missing file, InvalidInput for what is damaged, is no plain LoRA (rsLoRA
    is one with another scale), or does not fit together.
    """
    for name in (ADAPTER_CONFIG, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise NotFound(
                f"{directory} holds no {name}",
                field="adapter",
                remedy="give a PEFT adapter directory",
            )
    config = _read_json(directory / ADAPTER_CONFIG)
    _refuse_unsupported(config, directory)
    rank, alpha = _rank_and_alpha(config, directory)
    try:
        tensors = load_file(directory / WEIGHTS_FILE)
    except SafetensorError as error:
        raise _damaged(f"{directory / WEIGHTS_FILE} cannot be read: {error}") from error
    pairs: dict[str, LoraPair] = {}
    for key in tensors:
        if key.startswith(_PREFIX) and key.endswith(_A_SUFFIX):
            name = key.removeprefix(_PREFIX).removesuffix(_A_SUFFIX)
            factors = tensors[key], tensors.get(f"{_PREFIX}{name}{_B_SUFFIX}")
            pairs[name] = _checked_pair(name, *factors, rank=rank, directory=directory)
    known = {f"{_PREFIX}{name}{end}" for name in pairs for end in (_A_SUFFIX, _B_SUFFIX)}
    if others := sorted(set(tensors) - known):
        raise InvalidInput(
            f"adapter in {directory} holds tensors that are no LoRA factors, such as {others[0]}",
            field="adapter",
            remedy="export it with bias='none' and without modules_to_save",
        )
    if not pairs:
        raise _damaged(f"adapter in {directory} holds no tensors")
    return Adapter(_read_base(config, directory), rank, alpha, pairs)


def _read_json(file: Path) -> Mapping[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise _damaged(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(f"{file} holds no JSON object")
    return content


def _read_base(config: Mapping[str, object], directory: Path) -> BaseReference:
    """By the digest where SEAL wrote the adapter, else by what PEFT calls the base."""
    location, revision = (
        value if isinstance(value := config.get(key), str) else ""
        for key in ("base_model_name_or_path", "revision")
    )
    if not (directory / BASE_FILE).is_file():
        return BaseReference(location, revision=revision)
    told = _read_json(directory / BASE_FILE)
    name, sha256 = told.get("name"), told.get("sha256")
    if not isinstance(name, str) or not isinstance(sha256, str):
        raise _damaged(f"{directory / BASE_FILE} names no base model")
    found_at = "" if location == name else location
    return BaseReference(name, sha256, location=found_at, revision=revision)


def _rank_and_alpha(config: Mapping[str, object], directory: Path) -> tuple[int, float]:
    """Rank r and the alpha with which the update is alpha / r * B A."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
        raise _damaged(f"adapter in {directory} has r = {rank!r}, which is no rank")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise _damaged(f"adapter in {directory} has lora_alpha = {alpha!r}, which is no number")
    return rank, float(alpha) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)


def _checked_pair(
    name: str, a: torch.Tensor, b: torch.Tensor | None, *, rank: int, directory: Path
) -> LoraPair:
    layer = f"layer {name} of the adapter in {directory}"
    if b is None or a.dim() != 2 or b.dim() != 2 or not a.shape[0] == b.shape[1] == rank:
        raise _damaged(f"{layer} does not have two factors of rank {rank}")
    for factor in (a, b):
        if factor.dtype not in _DTYPES:
            kind = str(factor.dtype).removeprefix("torch.")
            raise _damaged(f"{layer} has factors of type {kind}, not float32, float16 or bfloat16")
        if not bool(torch.isfinite(factor).all()):
            raise _damaged(f"{layer} holds NaN or infinite weights")
    return LoraPair(a, b)


def _refuse_unsupported(config: Mapping[str, object], directory: Path) -> None:
    """Raise InvalidInput for every option under which the factors would mean something else."""
    if config.get("peft_type") != "LORA":
        raise InvalidInput(
            f"{directory} is a {config.get('peft_type')} adapter",
            field="adapter",
            remedy="only LoRA is supported",
        )
    start = config.get("init_lora_weights")
    if not any(start is plain or start == plain for plain in _PLAIN_STARTS):
        raise InvalidInput(
            f"adapter in {directory} was initialised as {start!r}, which changes the base model "
            "too",
            field="adapter",
            remedy="save it as plain LoRA: PEFT's save_pretrained with "
            "path_initial_model_for_weight_conversion",
        )
    for option, value in config.items():
        if option == "bias" and value == "none":
            continue
        if value and option not in _SAYS_NOTHING:
            known = f" ({_KNOWN_AS[option]})" if option in _KNOWN_AS else ""
            raise InvalidInput(
                f"adapter in {directory} uses {option}{known}, which is not supported",
                field="adapter",
                remedy="train it without that option",
            )


def _damaged(what: str) -> InvalidInput:
    return InvalidInput(what, field="adapter", remedy="export the adapter again")
