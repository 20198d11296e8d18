"""A checkpoint: the whole state of one training between two steps, and that training's digest.

As bytes it is a safetensors file: weights, first and second moments (float32) and the loss of each
step (float64); in its header a JSON text of the counters and a sha256 over all of it. Row order,
learning rate and the rest follow from the request and the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from seal.engine.peft_format import Adapter
from seal.errors import InvalidInput

if TYPE_CHECKING:
    from seal.engine.model import FrozenModel
    from seal.engine.requests import TrainingRequest
    from seal.engine.text import TrainingRow

FORMAT = "seal-slot-checkpoint/2"
"""Changes when a training of the same request would go another way, or when the file looks
different."""
MAX_HEADER_BYTES = 1 << 20
"""A longer safetensors header is none of ours."""
_NOT_IN_FINGERPRINT = ("run", "policy", "examples", "with_policy")
"""Fields of a request that are no part of the training (whom it is for, how it is exported) or that
enter by their content."""


class _Counters(BaseModel):
    """The JSON text in the header."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: str = Field(pattern=f"^{FORMAT}$")
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    optimizer_step: int = Field(ge=0)
    step: int = Field(ge=1)
    tokens: int = Field(ge=0)
    engine_seconds: float = Field(ge=0)
    seconds: float = Field(ge=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SlotCheckpoint:
    """The state of one training after `step` steps; the tensors are its own, on the CPU."""

    fingerprint: str
    """sha256 of all that defines the training (`fingerprint_of`)."""
    values_P: torch.Tensor
    """Weights, (P,) float32."""
    first_P: torch.Tensor
    """First moments, (P,) float32."""
    second_P: torch.Tensor
    """Second moments, (P,) float32."""
    optimizer_step: int
    step: int
    """Steps of the training that are done."""
    losses: tuple[float, ...]
    """Mean loss of each of them."""
    tokens: int
    """Real tokens forwarded with gradient."""
    engine_seconds: float
    seconds: float
    """Time in a slot, over all processes."""

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        tensors = {
            "values": self.values_P,
            "first": self.first_P,
            "second": self.second_P,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }
        counters = _Counters.model_validate(
            {"format": FORMAT}
            | {name: getattr(self, name) for name in _Counters.model_fields if name != "format"}
        )
        state = counters.model_dump_json()
        return safetensors.torch.save(
            tensors, metadata={"state": state, "sha256": _sha256(state, tensors)}
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> SlotCheckpoint:
        """Read what `to_bytes` wrote.

        Raises InvalidInput for anything that is truncated, altered or of another kind.
        """
        try:
            metadata = _metadata(content)
            tensors = safetensors.torch.load(content)
            _check_tensors(tensors)
            if metadata["sha256"] != _sha256(metadata["state"], tensors):
                raise ValueError("its content is not what was written")
            counters = _Counters.model_validate_json(metadata["state"])
            if len(tensors["losses"]) != counters.step:
                raise ValueError(
                    f"it holds {len(tensors['losses'])} losses for {counters.step} steps"
                )
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidInput(
                f"the checkpoint cannot be read: {reason}",
                field="checkpoint",
                remedy="delete it; the training then starts anew",
            ) from error
        return cls(
            values_P=tensors["values"],
            first_P=tensors["first"],
            second_P=tensors["second"],
            losses=tuple(tensors["losses"].tolist()),
            **counters.model_dump(exclude={"format"}),
        )


def fingerprint_of(
    model: FrozenModel, request: TrainingRequest, rows: Sequence[TrainingRow]
) -> str:
    """sha256 of what defines a training up to rounding.

    That is base model, compute type, policy, tokens, adapter, optimiser and seeds.
    """
    digest = hashlib.sha256()
    settings = {
        field.name: getattr(request, field.name)
        for field in fields(request)
        if field.name not in _NOT_IN_FINGERPRINT
    }
    described = {
        "format": FORMAT,
        "base": model.base.sha256 or model.name,
        "dtype": str(model.dtype),
        "layers": {
            name: (size.in_features, size.out_features) for name, size in model.layers.items()
        },
        "policy": None if request.policy is None else _adapter_digest(request.policy),
        "request": {
            name: value.model_dump() if isinstance(value, BaseModel) else value
            for name, value in settings.items()
        },
    }
    digest.update(json.dumps(described, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps([row.targets, row.tokens]).encode())
    return digest.hexdigest()


def _adapter_digest(adapter: Adapter) -> str:
    """sha256 of an adapter's scale and weights, however it came into memory."""
    digest = hashlib.sha256(f"{adapter.rank} {adapter.alpha!r}".encode())
    for name, pair in sorted(adapter.pairs.items()):
        for factor in (pair.a, pair.b):
            digest.update(f"{name} {factor.dtype} {tuple(factor.shape)} ".encode())
            digest.update(factor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _metadata(content: bytes) -> dict[str, str]:
    """The header's own texts.

    Raises ValueError or KeyError for what is no safetensors file of ours.
    """
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError("it is no safetensors file, or a truncated one")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    return {name: str(metadata[name]) for name in ("state", "sha256")}


def _check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError unless these are exactly the tensors of a checkpoint."""
    parameters = tensors["values"].numel()
    expected = dict.fromkeys(("values", "first", "second"), ((parameters,), torch.float32))
    expected["losses"] = ((tensors["losses"].numel(),), torch.float64)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if found != expected:
        raise ValueError("it holds other tensors than a checkpoint")


def _sha256(state: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.numel()} ".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
