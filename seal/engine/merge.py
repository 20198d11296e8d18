"""A base model with an adapter in its weights: a directory that needs no adapter any more.

Every weight that the adapter changes becomes W + alpha / r * B A, computed in float32 and rounded
once to the type of W. Everything else of the model's directory is copied to the byte, so that what
transformers makes of it is the same model. One file of weights is in memory at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seal.bases import BaseReference
from seal.engine.peft_format import WEIGHTS_FILE, Adapter, load_adapter
from seal.errors import Conflict, InvalidInput
from seal.files import (
    copy_durably,
    file_errors,
    flush,
    install_directory,
    sha256_of_file,
    temporary_sibling,
)
from seal.model_files import COMPANION_FILES, check_model_directory
from seal.settings import ALL_PROJECTIONS

CARD_FILE = "README.md"
ADAPTER_CARD_FILE = "ADAPTER.md"
"""The card that the adapter came with."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_PREFIX = "model."
"""Begins the layers' names, but not in weights that were saved without the output layer."""


def merge_adapter(
    model_dir: Path, adapter_dir: Path, out_dir: Path, *, base: BaseReference | None = None
) -> None:
    """Write a base model and an adapter, a PEFT directory, as one model to `out_dir`.

    It appears whole or not at all. `base`: what adapters call the model of `model_dir`; with it an
    adapter of another model is refused, without it only one that does not fit.

    Raises Conflict if `out_dir` exists, InvalidInput naming what does not fit or cannot be read,
    NotFound for an adapter that is none, Exhausted if the disk is full.
    """
    if out_dir.exists() or out_dir.is_symlink():
        raise _exists(out_dir)
    weights = check_model_directory(model_dir)
    adapter = load_adapter(adapter_dir)
    if base is not None and not adapter.base.same_as(base):
        raise InvalidInput(
            f"the adapter was trained on base model {adapter.base}, the model is {base}",
            field="adapter",
            remedy="name the model that the adapter was trained on",
        )
    layers = _layers_by_tensor(adapter, weights)
    with file_errors(out_dir):
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(out_dir)
        temporary.mkdir()
        try:
            dtypes = [_write_merged(file, temporary, adapter, layers) for file in weights]
            for name in COMPANION_FILES:
                if (model_dir / name).is_file():
                    copy_durably(model_dir / name, temporary / name)
            own_card = (adapter_dir / CARD_FILE).is_file()
            if own_card:
                copy_durably(adapter_dir / CARD_FILE, temporary / ADAPTER_CARD_FILE)
            card = _card(
                base or adapter.base,
                adapter,
                adapter_sha256=sha256_of_file(adapter_dir / WEIGHTS_FILE),
                dtypes=set().union(*dtypes),
                own_card=own_card,
            )
            with (temporary / CARD_FILE).open("xb") as file:
                file.write(card.encode())
                flush(file)
            if not install_directory(temporary, out_dir, adopt=lambda _: True):
                raise _exists(out_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _layers_by_tensor(adapter: Adapter, weights: Iterable[Path]) -> Mapping[str, str]:
    """Name of a tensor in the weights -> the adapter's layer that changes it.

    Raises InvalidInput unless every layer has one tensor, of its shape and of a type that can be
    added to.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weights:
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no mapping
    layers: dict[str, str] = {}
    for layer, pair in adapter.pairs.items():
        names = (f"{layer}.weight", f"{layer.removeprefix(_PREFIX)}.weight")
        name = next((name for name in names if name in shapes), "")
        fits = name and shapes[name] == (pair.b.shape[0], pair.a.shape[1])
        if not fits or layer.rpartition(".")[2] not in ALL_PROJECTIONS:
            raise InvalidInput(
                f"adapter layer {layer} does not fit the model",
                field="adapter",
                remedy="name the model that the adapter was trained on",
            )
        layers[name] = layer
    return layers


def _write_merged(
    file: Path, directory: Path, adapter: Adapter, layers: Mapping[str, str]
) -> set[str]:
    """Write one file of weights with the adapter in them; types of the weights it changed."""
    dtypes: set[str] = set()
    try:
        with safe_open(file, "pt") as tensors:
            metadata = tensors.metadata() or {"format": "pt"}
            content = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise InvalidInput(
            f"model: {file} cannot be read: {error}",
            field="model",
            remedy="copy or download that file again",
        ) from error
    for name in sorted(content.keys() & layers.keys()):
        weight, pair = content[name], adapter.pairs[layers[name]]
        kind = str(weight.dtype).removeprefix("torch.")
        if weight.dtype not in _DTYPES:
            raise InvalidInput(
                f"model: {name} is of type {kind}, to which nothing can be added",
                field="model",
                remedy="use the model that is not quantised",
            )
        update = pair.b.float() @ pair.a.float() * adapter.scale
        content[name] = (weight.float() + update).to(weight.dtype)
        dtypes.add(kind)
    target = directory / file.name
    save_file(content, target, metadata=metadata)
    with target.open("rb") as written:
        flush(written)
    return dtypes


def _card(
    base: BaseReference,
    adapter: Adapter,
    *,
    adapter_sha256: str,
    dtypes: Iterable[str],
    own_card: bool,
) -> str:
    """What the model is; a function of base and adapter alone."""
    front = f"base_model: {base.hub_id}\nbase_model_relation: merge\n" if base.hub_id else ""
    revision = f", revision `{base.revision}`" if base.revision else ""
    facts = {
        "base model": f"`{base.hub_id or base.name}`{revision}",
        "sha256 of the base's weights": f"`{base.sha256}`" if base.sha256 else "not known",
        "sha256 of the adapter's weights": f"`{adapter_sha256}`",
        "LoRA": f"rank {adapter.rank}, alpha {adapter.alpha:g}, on "
        + ", ".join(adapter.target_modules),
        "weights changed": f"{len(adapter.pairs)}, of type " + ", ".join(sorted(dtypes)),
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    learnt = (
        f"What the adapter was trained on stands in [{ADAPTER_CARD_FILE}]({ADAPTER_CARD_FILE}).\n\n"
        if own_card
        else ""
    )
    return f"""---
library_name: transformers
{front}tags:
- seal
---
# Base model with a LoRA adapter in its weights, merged by SEAL

{learnt}| | |
|---|---|
{table}
The adapter's update was added in float32 and rounded once to the type of the weights: where that is
a type of 16 bits, an answer may differ a little from that of the base model with the adapter beside
it.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
```
"""


def _exists(out_dir: Path) -> Conflict:
    return Conflict(
        f"{out_dir} exists", field="out_dir", remedy="name a directory that is not there yet"
    )
