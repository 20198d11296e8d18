"""What the engine's memory allows.

It refuses what can never fit, limits the slots of a batch, and says when a pass has to be
recomputed. When is checked what:

- at the engine's start: the setting with a request of the default shape (`LoraSettings`), its
  longest rows and fullest pass. If it does not fit, the engine does not start and names the number
  of slots that would.
- at a request: one slot of its own rank, targets and policy. If not even that fits it is refused,
  before it waits.
- at a batch: how many slots of that shape fit; the batch never grows beyond.
- at each pass, with `gradient_checkpointing: auto`: whether its activations fit beside the slots;
  if not, it is recomputed layer by layer.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import structlog

from seal.engine.memory import AdapterSize, MemoryEstimate, Workload, estimate
from seal.engine.peft_format import Adapter
from seal.engine.sizes import ModelSize
from seal.errors import InvalidInput
from seal.settings import EngineSettings, LoraSettings

log = structlog.get_logger(__name__)

MIB = 2**20
REMEDY_MEMORY = (
    "give the engine more memory (engine.memory_bytes, the container's limit, another device)"
)


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may take."""

    slots: int
    activation_bytes: int | None
    """Passes that take more are recomputed layer by layer; None: none ever is."""


class MemoryBudget:
    """The decisions for one engine.

    `limit_bytes` is all that it may take, the base model included.
    """

    def __init__(self, size: ModelSize, settings: EngineSettings, limit_bytes: int) -> None:
        """Raises InvalidInput naming `engine.slots` and the largest number that fits."""
        self._size, self._settings, self.limit_bytes = size, settings, limit_bytes
        default = LoraSettings()
        self.at_start = self._check_setting(
            default.model_copy(update={"rank": min(default.rank, settings.max_rank)})
        )

    def check_request(self, lora: LoraSettings, policy: Adapter | None) -> None:
        """Raise InvalidInput if one slot of this shape does not fit."""
        needed = self._estimate(1, lora, policy)
        if needed.total > self.limit_bytes:
            raise InvalidInput(
                f"one adapter of rank {lora.rank} on {', '.join(lora.target_modules)} takes "
                f"{_mib(needed.total)} with the base model, "
                f"the engine has {_mib(self.limit_bytes)}",
                field="lora.rank",
                remedy=f"ask for a smaller rank or fewer targets, or {REMEDY_MEMORY}",
            )

    def limits(self, lora: LoraSettings, policy: Adapter | None) -> BatchLimits:
        """Slots and activations of a batch of this shape."""
        slots = self._largest_slots(lora, policy)
        if slots < self._settings.slots:
            log.warning(
                "training_batch_limited",
                slots=slots,
                wanted=self._settings.slots,
                rank=lora.rank,
                limit_mib=self.limit_bytes // MIB,
            )
        mode = self._settings.gradient_checkpointing
        left = self.limit_bytes - self._estimate(slots, lora, policy).resident
        return BatchLimits(max(1, slots), None if mode == "off" else 0 if mode == "on" else left)

    def _check_setting(self, lora: LoraSettings) -> MemoryEstimate:
        needed = self._estimate(self._settings.slots, lora, None)
        if needed.total > self.limit_bytes:
            fitting = self._largest_slots(lora, None)
            shape = f"rank {lora.rank} on {', '.join(lora.target_modules)}"
            raise InvalidInput(
                f"{self._settings.slots} slots of {shape} take {_mib(needed.total)}, the engine "
                f"has {_mib(self.limit_bytes)}: "
                + (f"{fitting} slots fit" if fitting else "not even one slot fits"),
                field="engine.slots",
                remedy=(
                    f"set engine.slots to {fitting} or less" if fitting else self._remedy(needed)
                )
                + f", or {REMEDY_MEMORY}",
            )
        return needed

    def _remedy(self, needed: MemoryEstimate) -> str:
        """What makes room when the slots do not."""
        if needed.base > self.limit_bytes:
            return "use a smaller base model"
        if self._settings.gradient_checkpointing == "off":
            return "set engine.gradient_checkpointing to auto"
        return "lower engine.max_row_tokens, engine.max_pass_tokens or engine.evaluation_rows"

    def _largest_slots(self, lora: LoraSettings, policy: Adapter | None) -> int:
        """The most slots, up to the setting, that fit; 0 if none."""
        counts = range(1, self._settings.slots + 1)
        return bisect_right(
            counts, self.limit_bytes, key=lambda slots: self._estimate(slots, lora, policy).total
        )

    def _estimate(self, slots: int, lora: LoraSettings, policy: Adapter | None) -> MemoryEstimate:
        """With gradient checkpointing if that is on, or is left open and it takes that to fit."""
        settings = self._settings
        load = Workload(
            slots=slots,
            adapter=AdapterSize(rank=lora.rank, targets=lora.target_modules),
            policy=None
            if policy is None
            else AdapterSize(rank=policy.rank, targets=policy.target_modules),
            row_tokens=settings.max_row_tokens,
            pass_tokens=settings.max_pass_tokens,
            decoded_rows=max(settings.evaluation_rows, settings.generation_rows),
            recompute=settings.gradient_checkpointing == "on",
        )
        needed = estimate(self._size, load)
        if settings.gradient_checkpointing == "auto" and needed.total > self.limit_bytes:
            return estimate(self._size, replace(load, recompute=True))
        return needed


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
