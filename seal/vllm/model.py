"""What the backend knows of the model that vLLM has loaded, and which LoRAs it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.remedies import engine_setting
from seal.vllm.adapters import rank

if TYPE_CHECKING:
    from seal.engine import Adapter, ModelOutline


@dataclass(frozen=True, kw_only=True)
class VllmModel:
    """What the backend knows of the model that vLLM has loaded."""

    outline: ModelOutline
    dtype: str
    max_rank: int
    """Largest rank of one LoRA, an adapter together with its policy."""
    max_adapters: int
    """LoRAs in one batch."""
    target_modules: tuple[str, ...]
    """Layers that can have an adapter."""

    def check_adapters(self, policy: Adapter | None, adapter: Adapter | None) -> None:
        """Raise InvalidInput or UnfitItem for a LoRA that vLLM cannot hold.

        It would leave layers out in silence, and a rank would end its workers.
        """
        for one, name in ((policy, "policy"), (adapter, "adapter")):
            if one is None:
                continue
            self.outline.check_adapter(one, field=name)
            if one.rank < 1:
                raise UnfitItem(
                    f"the adapter has rank {one.rank}",
                    outcome=Outcome.REFUSED,
                    field=name,
                    remedy="use an adapter of rank 1 or more",
                )
            if others := sorted(set(one.target_modules) - set(self.target_modules)):
                raise InvalidInput(
                    f"the adapter has layers {', '.join(others)}, this server takes adapters of "
                    f"{', '.join(self.target_modules)}",
                    field=name,
                    remedy="start the server with --vllm-target-modules that name them too",
                )
        if (together := rank(policy, adapter)) > self.max_rank:
            raise InvalidInput(
                f"the adapter and its policy have rank {together} together, this server takes "
                f"{self.max_rank}",
                field="adapter" if adapter is not None else "policy",
                remedy=f"raise {engine_setting('max_rank', together)}",
            )
