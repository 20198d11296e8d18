"""What is known of a base model without its weights: its text, its positions, its target layers.

For backends that compute with another program and still must know before they ask it what a request
comes to, and which adapters fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from transformers import AutoTokenizer, GenerationConfig

from seal.bases import BaseReference
from seal.engine.architecture import empty_model, read_config
from seal.engine.bank import LayerSize
from seal.engine.peft_format import Adapter, LoraPair
from seal.engine.text import ModelText
from seal.errors import InvalidInput
from seal.settings import ALL_PROJECTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelOutline:
    """A transformers directory without its weights."""

    base: BaseReference
    text: ModelText
    positions: int | None
    """Tokens that a row may have; None if the model does not say."""
    layers: Mapping[str, LayerSize]
    """The layers that can have an adapter, by name."""

    def check_adapter(self, adapter: Adapter, *, field: str) -> None:
        """Raise InvalidInput if the adapter is for another base model or a layer does not fit."""
        refuse_other_adapter(adapter, self.base, self.layers, field=field)

    def neutral_adapter(self) -> Adapter:
        """An adapter that changes nothing: zeros of rank 1 on one layer."""
        layer = min(self.layers)
        size = self.layers[layer]
        pair = LoraPair(torch.zeros(1, size.in_features), torch.zeros(size.out_features, 1))
        return Adapter(self.base, 1, 1.0, {layer: pair})


def read_outline(directory: Path, *, name: str, base: BaseReference | None = None) -> ModelOutline:
    """The outline of a transformers directory. `base`: as for `FrozenModel.load`.

    Raises InvalidInput naming what the engine does not support.
    """
    model = empty_model(read_config(directory, name=name), name=name, dtype=torch.float32)
    positions = getattr(model.config, "max_position_embeddings", None)
    return ModelOutline(
        base=base or BaseReference(name),
        text=ModelText(
            read_tokenizer(directory, name),
            name=name,
            end_tokens=_end_tokens(directory),
            embedding_rows=model.get_input_embeddings().weight.shape[0],  # type: ignore[operator]
        ),
        positions=None if positions is None else int(positions),
        layers={
            path: LayerSize(module.in_features, module.out_features)
            for path, module in model.named_modules()
            if is_target(module, path)
        },
    )


def is_target(module: nn.Module, path: str) -> TypeGuard[nn.Linear]:
    """Whether a module of a model can have an adapter."""
    return isinstance(module, nn.Linear) and path.rsplit(".", 1)[-1] in ALL_PROJECTIONS


def refuse_other_adapter(
    adapter: Adapter, base: BaseReference, layers: Mapping[str, LayerSize], *, field: str
) -> None:
    """Raise InvalidInput if an adapter is for another base model or a layer does not fit."""
    if not adapter.base.same_as(base):
        raise InvalidInput(
            f"adapter was trained on base model {adapter.base}, this engine runs {base}",
            field=field,
            remedy="use an adapter of this base model or start the service with the other model",
        )
    for layer, pair in adapter.pairs.items():
        size = layers.get(layer)
        if size is None or (pair.b.shape[0], pair.a.shape[1]) != (
            size.out_features,
            size.in_features,
        ):
            raise InvalidInput(
                f"adapter layer {layer} does not fit base model {base.name!r}",
                field=field,
                remedy="use an adapter of this base model",
            )


def read_tokenizer(directory: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a transformers directory. Raises InvalidInput for one that is none."""
    try:
        return AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise InvalidInput(
            f"the tokenizer of model {name!r} cannot be read: {' '.join(str(error).split())[:200]}",
            field="model",
            remedy="save it anew with tokenizer.save_pretrained",
        ) from error


def end_tokens(config: GenerationConfig | None) -> tuple[int, ...]:
    """Every token that a generation config ends a text with."""
    ends = getattr(config, "eos_token_id", None)
    if ends is None:
        return ()
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def _end_tokens(directory: Path) -> tuple[int, ...]:
    """As transformers fills a loaded model's generation config: its file, else the model's own."""
    if (directory / "generation_config.json").is_file():
        return end_tokens(GenerationConfig.from_pretrained(directory))
    return end_tokens(
        GenerationConfig.from_model_config(read_config(directory, name=str(directory)))
    )
