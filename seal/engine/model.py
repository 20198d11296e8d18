"""The frozen base model.

Any dense causal language model of transformers, its target layers replaced by slot linears. Nothing
of a model is written anew: target `nn.Linear`s become `SlotLinear`s in place and attention enters
through transformers' attention interface. After the replacement the engine compares its logits with
transformers' own eager attention on a short random prompt, so a model that does something this
engine does not know (soft-capping, logit scaling, a mask of its own) is refused instead of trained
wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from seal.bases import BaseReference
from seal.engine.architecture import (
    SUPPORTED,
    empty_model,
    read_config,
    refuse_config,
    refuse_structure,
)
from seal.engine.attention import ATTENTION_NAME, AttentionHolder, VarlenRows, register_attention
from seal.engine.bank import LayerSize
from seal.engine.cached_attention import CachedPass
from seal.engine.gradient_checkpointing import GradientCheckpointing
from seal.engine.kernels import choose_kernels
from seal.engine.linear import FrozenRoute, Route, RouteHolder, SlotLinear
from seal.engine.norm import frozen_norm
from seal.engine.outline import end_tokens, is_target, read_tokenizer, refuse_other_adapter
from seal.engine.packed_attention import PackedRows
from seal.engine.peft_format import Adapter
from seal.engine.sizes import ModelSize, size_of
from seal.engine.text import ModelText
from seal.errors import InvalidInput
from seal.settings import ALL_PROJECTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SELF_CHECK_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""Largest root mean square difference of the self-check's logits over their standard deviation. In
bfloat16 (8 bits of mantissa) smollm2-135m's 30 layers differ by 0.067 on an H200 and by 0.048 on a
CPU, where the engine is 0.037 and transformers 0.029 away from float32."""


NAMED_TENSORS = 3
"""Tensors that an error names; it counts the rest."""


class FrozenModel:
    """One base model in memory with all that training, generation and scoring need from it."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        base: BaseReference | None = None,
    ) -> None:
        """`base`: what adapters say of it; None: its name alone."""
        refuse_config(model.config, name=name)
        refuse_structure(model, name=name)
        self.name, self.tokenizer, self.model = name, tokenizer, model
        self.base = base or BaseReference(name)
        self.config: Any = model.config
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self._routes, self._attention = RouteHolder(), AttentionHolder()
        model.requires_grad_(False).eval()
        reference = _reference_logits(model)
        self.layers = self._install()
        self.size = size_of(model)
        self._checkpointing = GradientCheckpointing(model, self._remember)
        sizes = [(size.in_features, size.out_features) for size in self.layers.values()]
        self.kernels = choose_kernels(self.device, self.dtype, head_dim=self.head_dim, layers=sizes)
        self._self_check(*reference)
        self.text = ModelText(
            tokenizer,
            name=name,
            end_tokens=end_tokens(getattr(model, "generation_config", None)),
            embedding_rows=model.get_input_embeddings().weight.shape[0],  # type: ignore[operator]
        )

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str,
        dtype: torch.dtype,
        device: str = "cpu",
        base: BaseReference | None = None,
    ) -> FrozenModel:
        """Load a transformers directory.

        Raises InvalidInput naming what the engine does not support, and the tensors that the
        weights lack or have beyond the model's: transformers would fill in random numbers or leave
        them out.
        """
        read_config(directory, name=name)
        tokenizer = read_tokenizer(directory, name)
        loading: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        model, loaded = loading
        _refuse_other_tensors(loaded, name)
        model.to(device)
        return cls(model, tokenizer, name=name, base=base)

    @classmethod
    def size_on_disk(cls, directory: Path, *, name: str, dtype: torch.dtype) -> ModelSize:
        """The sizes of a transformers directory's model, from its configuration alone.

        Raises InvalidInput as `load`.
        """
        return size_of(empty_model(read_config(directory, name=name), name=name, dtype=dtype))

    @property
    def head_V_d(self) -> torch.Tensor:
        """The frozen output matrix."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return,operator]

    @property
    def kv_heads(self) -> int:
        """Key-value heads per layer."""
        return int(
            getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        )

    @property
    def positions(self) -> int | None:
        """Tokens that a row may have; None if the model does not say."""
        count = getattr(self.config, "max_position_embeddings", None)
        return None if count is None else int(count)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return int(
            getattr(self.config, "head_dim", None)
            or self.config.hidden_size // self.config.num_attention_heads
        )

    def embed(self, tokens_T: torch.Tensor) -> torch.Tensor:
        """(T,) token ids -> (1, T, d)."""
        return self.model.get_input_embeddings()(tokens_T[None])  # type: ignore[no-any-return,operator]

    def hidden(
        self,
        embeddings: torch.Tensor,
        positions_T: torch.Tensor,
        *,
        route: Route | FrozenRoute | None,
        plan: PackedRows | VarlenRows | CachedPass,
        gradient_checkpointing: bool = False,
    ) -> torch.Tensor:
        """Final hidden states (T, d) of one packed sequence of embeddings (1, T, d).

        `gradient_checkpointing`: hold the layers' inputs alone for the backward pass.
        """
        with self._checkpointing.switched(gradient_checkpointing), self._running(route, plan):
            output = self.model.base_model(  # type: ignore[operator]
                inputs_embeds=embeddings, position_ids=positions_T[None], use_cache=False
            )
        return output.last_hidden_state.squeeze(0)  # type: ignore[no-any-return]

    @contextmanager
    def _running(
        self, route: Route | FrozenRoute | None, plan: PackedRows | VarlenRows | CachedPass | None
    ) -> Iterator[None]:
        before = self._routes.route, self._attention.plan
        self._routes.route, self._attention.plan = route, plan
        try:
            yield
        finally:
            self._routes.route, self._attention.plan = before

    def _remember(self) -> Callable[[], AbstractContextManager[None]]:
        """How to run again what is running now, after it has ended."""
        return partial(self._running, self._routes.route, self._attention.plan)

    def policy_factors(
        self, policy: Adapter | None
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The policy adapter in compute type, scale folded into B.

        Raises InvalidInput if it belongs to another base or does not fit.
        """
        if policy is None:
            return {}
        self.check_adapter(policy, field="policy")
        return {
            name: (
                pair.a.to(self.device, self.dtype),
                (pair.b.float() * policy.scale).to(self.device, self.dtype),
            )
            for name, pair in policy.pairs.items()
        }

    def check_adapter(self, adapter: Adapter, *, field: str) -> None:
        """Raise InvalidInput if the adapter is for another base model or a layer does not fit."""
        refuse_other_adapter(adapter, self.base, self.layers, field=field)

    def target_layers(self, targets: tuple[str, ...]) -> Mapping[str, LayerSize]:
        """The layers whose last name is in `targets`.

        Raises InvalidInput naming a target that the model does not have.
        """
        known = {name.rsplit(".", 1)[-1] for name in self.layers}
        for target in targets:
            if target not in known:
                raise InvalidInput(
                    f"base model {self.name!r} has no layer {target!r}",
                    field="lora.target_modules",
                    remedy=f"choose from {', '.join(sorted(known))}",
                )
        return {
            name: size for name, size in self.layers.items() if name.rsplit(".", 1)[-1] in targets
        }

    def _install(self) -> dict[str, LayerSize]:
        register_attention()
        layers: dict[str, LayerSize] = {}
        for name, module in list(self.model.named_modules()):
            if hasattr(module, "layer_idx") and hasattr(module, "q_proj"):
                module.seal_attention = self._attention
            if is_target(module, name):
                self.model.set_submodule(name, SlotLinear(module, name, self._routes))
                layers[name] = LayerSize(module.in_features, module.out_features)
            elif (norm := frozen_norm(module)) is not None:
                self.model.set_submodule(name, norm)
        if not layers:
            raise InvalidInput(
                f"model {self.name!r} has none of the layers {', '.join(ALL_PROJECTIONS)}",
                field="model",
                remedy="use a Llama-like model",
            )
        self.model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
        return layers

    @torch.no_grad()
    def _self_check(self, tokens_T: torch.Tensor, reference_V: torch.Tensor) -> None:
        count = len(tokens_T)
        plan = self.kernels.lay_out([[count]], self.device).attention
        hidden = self.hidden(
            self.embed(tokens_T), torch.arange(count, device=self.device), route=None, plan=plan
        )
        difference = (hidden[-1:] @ self.head_V_d.t()).float()[0] - reference_V
        error = float(difference.square().mean().sqrt() / reference_V.std().clamp_min(1e-6))
        if not error <= SELF_CHECK_TOLERANCE[self.dtype]:
            raise InvalidInput(
                f"model {self.name!r} ({self.config.model_type}) gives other logits in this "
                "engine than in transformers "
                f"(relative difference {error:.2g}): it does something the engine does not know",
                field="model",
                remedy=f"use {SUPPORTED}",
            )


def _refuse_other_tensors(loaded: Mapping[str, Any], name: str) -> None:
    """Raise InvalidInput unless the weights held exactly the model's tensors, in their shapes."""
    shapes = {
        f"{tensor} of shape {tuple(found)} where the model has {tuple(wanted)}"
        for tensor, found, wanted in loaded["mismatched_keys"]
    }
    for what, tensors in (
        ("lack tensors of the model", loaded["missing_keys"]),
        ("hold tensors that the model does not have", loaded["unexpected_keys"]),
        ("do not fit the configuration", shapes),
        ("cannot be read", loaded["error_msgs"]),
    ):
        if tensors:
            first = sorted(map(str, tensors))[:NAMED_TENSORS]
            more = f" and {len(tensors) - len(first)} more" if len(tensors) > len(first) else ""
            raise InvalidInput(
                f"the weights of model {name!r} {what}: {', '.join(first)}{more}",
                field="model",
                remedy="save the model anew with model.save_pretrained (for a compiled or wrapped "
                "model, that of the module within), together with its config.json",
            )


@torch.no_grad()
def _reference_logits(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens (T,) and transformers' own logits (V,) after them, by eager attention."""
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
    tokens = torch.randint(0, vocabulary, (24,), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(next(model.parameters()).device)
    return tokens, model(input_ids=tokens[None], use_cache=False).logits[0, -1].float()
