"""What the engine's memory allows.

It refuses what can never fit, limits what runs at once, and says when a pass has to be recomputed.
When is checked what:

- at the engine's start: the setting with a request of the default shape (`LoraSettings`), its
  longest rows and fullest pass. If it does not fit, fewer rows are decoded at once; if that does
  not help, fewer adapters are trained at once; if not even one fits, the engine does not start.
- at a request: one slot of its own rank, targets and policy. If not even that fits it is refused,
  before it waits.
- at a request to generate or evaluate: its longest row, and its adapter.
- at a batch: how many slots of that shape fit beside other batches; it never grows beyond. How many
  adapters an evaluation may stack, and how many rows' keys and values may be held.
- at each pass, with `gradient_checkpointing: auto`: whether its activations fit beside the slots;
  if not, it is recomputed layer by layer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seal.engine.bank import stacked_shape
from seal.engine.memory import (
    CACHE_COPIES,
    FLOAT32_BYTES,
    PASS_TOKENS,
    STACK_COPIES,
    AdapterSize,
    MemoryEstimate,
    Workload,
    estimate,
    position_bytes,
    prefill_bytes,
)
from seal.engine.peft_format import Adapter
from seal.engine.sizes import ModelSize
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.remedies import engine_setting
from seal.settings import EngineSettings, LoraSettings

MIB = 2**20
REMEDY_MEMORY = (
    "give the engine more memory: another device, a higher limit of the container, or raise "
    + engine_setting("memory_bytes")
)


@dataclass(frozen=True)
class RowLength:
    """A row to decode."""

    field: str
    """Where the request has it."""
    prompt: int
    """Tokens of the prompt."""
    positions: int
    """Tokens that it may have at its end."""


class MemoryBudget:
    """The decisions for one engine.

    `limit_bytes` is all that it may take, the base model included.
    """

    def __init__(self, size: ModelSize, settings: EngineSettings, limit_bytes: int) -> None:
        """Raises InvalidInput naming `engine.slots` if not even one fits."""
        self._size, self._settings, self.limit_bytes = size, settings, limit_bytes
        self.slots = settings.slots
        """Adapters of the default shape that are trained at once: the setting, or what fits."""
        self._decoded_rows = max(settings.evaluation_rows, settings.generation_rows)
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

    def largest_slots(self, lora: LoraSettings, policy: Adapter | None, held_bytes: int = 0) -> int:
        """The most slots of this shape, up to the setting, that fit beside other batches; or 0."""
        counts = range(1, self._settings.slots + 1)
        left = self.limit_bytes - held_bytes
        return bisect_right(
            counts, left, key=lambda slots: self._estimate(slots, lora, policy, left).total
        )

    def activation_bytes(self, held_bytes: int) -> int | None:
        """What a pass may take beside what is held from step to step.

        One that takes more is recomputed layer by layer; None: none ever is.
        """
        mode = self._settings.gradient_checkpointing
        return None if mode == "off" else 0 if mode == "on" else self._room(held_bytes)

    def stack_bytes(self, adapters: Sequence[Adapter | None]) -> int:
        """What an evaluation of these adapters takes for their stack."""
        rank, names = stacked_shape(adapters)
        layers = (size for name, size in self._size.targets.items() if name in names)
        widths = sum(size.in_features + size.out_features for size in layers)
        return STACK_COPIES * (len(adapters) + 1) * rank * widths * self._size.item_bytes

    def stack_fits(self, adapters: Sequence[Adapter | None], held_bytes: int) -> bool:
        """Whether the stack leaves half of what is free to keys and values."""
        return self.stack_bytes(adapters) <= self._room(held_bytes) // 2

    def cache_bytes(self, held_bytes: int, longest_prompt: int) -> int:
        """What keys and values may take beside what is held, prompts being no longer than that."""
        size = self._size
        work = prefill_bytes(size, tokens=max(PASS_TOKENS, longest_prompt), keys=longest_prompt)
        logits = self._decoded_rows * size.vocabulary * (size.item_bytes + 2 * FLOAT32_BYTES)
        return max(0, self._room(held_bytes) - work - logits)

    def check_decoded(self, row: RowLength) -> None:
        """Raise UnfitItem for a row whose keys and values could not be held even alone."""
        room = self._room(self.at_start.slots) // 2
        needed = self._row_bytes(row.prompt, row.positions)
        if needed <= room:
            return
        most = bisect_right(range(row.positions), room, key=lambda n: self._row_bytes(n, n))
        raise UnfitItem(
            f"a row of {row.prompt} tokens and {row.positions - row.prompt} more takes "
            f"{_mib(needed)}, the engine has {_mib(room)} for one: about {most} tokens",
            outcome=Outcome.TOO_LONG,
            field=row.field,
            remedy=f"shorten it, ask for fewer tokens, or {REMEDY_MEMORY}",
        )

    def check_stacked(self, adapter: Adapter, *, field: str) -> None:
        """Raise InvalidInput for an adapter that cannot be evaluated even alone."""
        room = self._room(self.at_start.slots) // 2
        needed = self.stack_bytes([adapter])
        if needed > room:
            raise InvalidInput(
                f"an adapter of rank {adapter.rank} takes {_mib(needed)} to evaluate, the engine "
                f"has {_mib(room)} for it",
                field=field,
                remedy=f"use an adapter of smaller rank or fewer layers, or {REMEDY_MEMORY}",
            )

    def _room(self, held_bytes: int) -> int:
        """What is left beside the base model and what is held from step to step."""
        return max(0, self.limit_bytes - self._size.base_bytes - held_bytes)

    def _row_bytes(self, prompt: int, positions: int) -> int:
        work = prefill_bytes(self._size, tokens=prompt, keys=prompt)
        return CACHE_COPIES * position_bytes(self._size) * positions + work

    def _check_setting(self, lora: LoraSettings) -> MemoryEstimate:
        """As many of the setting's slots as fit, then as many rows."""
        rows, self._decoded_rows = self._decoded_rows, 1
        wanted = self._settings.slots
        needed = self._estimate(wanted, lora, None)
        if needed.total > self.limit_bytes:
            self.slots = self.largest_slots(lora, None)
            if not self.slots:
                raise self._no_room(lora)
        self._decoded_rows = rows
        needed = self._estimate(self.slots, lora, None)
        while needed.total > self.limit_bytes:
            self._decoded_rows //= 2  # rows that do not fit wait
            needed = self._estimate(self.slots, lora, None)
        return needed

    def _no_room(self, lora: LoraSettings) -> InvalidInput:
        """Not even one slot fits; of an engine that trains nothing, not even one row."""
        slots = min(1, self._settings.slots)
        needed = self._estimate(slots, lora, None)
        shape = f"one slot of rank {lora.rank} on {', '.join(lora.target_modules)}"
        return InvalidInput(
            f"{shape if slots else 'one row'} takes {_mib(needed.total)} with the base model, the "
            f"engine has {_mib(self.limit_bytes)}",
            field="engine.slots",
            remedy=f"{self._remedy(needed)}, or {REMEDY_MEMORY}",
        )

    def _remedy(self, needed: MemoryEstimate) -> str:
        """What makes room when the slots do not."""
        if needed.base > self.limit_bytes:
            return "use a smaller base model"
        if self._settings.gradient_checkpointing == "off":
            return f"set {engine_setting('gradient_checkpointing', 'auto')}"
        return f"lower {engine_setting('max_row_tokens')} or {engine_setting('max_pass_tokens')}"

    def _estimate(
        self,
        slots: int,
        lora: LoraSettings,
        policy: Adapter | None,
        limit_bytes: int | None = None,
    ) -> MemoryEstimate:
        """With gradient checkpointing if that is on, or is left open and it takes that to fit.

        To fit into `limit_bytes`; None: all that the engine may take.
        """
        limit_bytes = self.limit_bytes if limit_bytes is None else limit_bytes
        settings = self._settings
        load = Workload(
            slots=slots,
            adapter=AdapterSize(rank=lora.rank, targets=lora.target_modules),
            policy=None
            if policy is None
            else AdapterSize(rank=policy.rank, targets=policy.target_modules),
            row_tokens=settings.max_row_tokens,
            pass_tokens=settings.max_pass_tokens,
            decoded_rows=self._decoded_rows,
            gradient_checkpointing=settings.gradient_checkpointing == "on",
        )
        needed = estimate(self._size, load)
        if settings.gradient_checkpointing == "auto" and needed.total > limit_bytes:
            return estimate(self._size, replace(load, gradient_checkpointing=True))
        return needed


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
