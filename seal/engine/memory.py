"""The memory model: how many bytes a setting takes, by part, before any of them is taken.

    base + policy                                     as long as the engine runs
    + slots x parameters x (16 + compute type)        as long as the batch lives: master, two
    moments, gradient in float32, compute copy
    + the larger of  one training pass                sums of gradients, activations, attention,
    work of one layer, logits of one chunk,
                                                      holes between them
                     one decode                       stack of adapters, keys and values, work
                     of the prefill, logits of all rows

The engine's thread does one thing at a time, so of training and decoding only the larger counts.
A decode's rows take their places as memory allows: rows that do not fit wait, and an evaluation
takes in no more adapters than their stack may take.

All terms but the holes count tensors, and a test compares them with all tensors that are alive in a
pass. The holes are what the allocator (`allocator.py`) holds beside them, a share that was
measured, on CPUs only (curve `memory` of docs/benchmarks.md); a decode has none in here. What
Python and torch take once they are loaded, and finished adapters that nobody has fetched, are not
in here.
"""

from __future__ import annotations

from dataclasses import dataclass

from seal.engine.layout import MAX_CHUNK_TOKENS
from seal.engine.loss import CHUNK_TARGETS, SOFTMAX_VALUES
from seal.engine.sizes import ModelSize

FLOAT32_BYTES = 4
SLOT_BYTES = 4 * FLOAT32_BYTES
"""Per parameter and slot: master, AdamW's two moments, gradient; the compute copy comes on top."""
PASS_GRADIENT_BYTES = FLOAT32_BYTES
"""Per parameter and slot: the sum over the passes of a step that takes more than one."""
SAVED_MLP_VALUES = 3
"""Values of the MLP's width that a token keeps per layer: gate, its activation, up; the input of
down_proj is counted with the linears."""
SAVED_PROBABILITIES = 1
"""Matrices of attention probabilities kept per layer, head and row."""
WORKING_PROBABILITIES = 2
"""The same that the backward of one layer needs beside: gradient of the probabilities and of the
scores."""
WORKING_MLP_VALUES = 4
"""Values of the MLP's width per token that the backward of one layer needs."""
OUTER_VALUES = 5
"""Values of the model's width per token outside the layers: embeddings, final norm, hidden states,
those at targets and their gradient."""
CACHE_COPIES = 2
"""A cache that grows or drops rows is copied while the old one is there."""
PASS_TOKENS = 2048
"""A pass over new prompts takes in the next row while it stays below this many tokens."""
STACK_COPIES = 2
"""An evaluation's stack of adapters, and the copy of those that running rows still use."""
WORKING_DECODE_MLP_VALUES = 3
"""Values of the MLP's width per token of a prefill."""
FLOAT32_HOLES, BFLOAT16_HOLES = 0.5, 0.75
"""Bytes of holes per byte of a pass's tensors. Holes stay in the process while no tensor fits into
them: a pass keeps some tensors of every layer and frees others between them, and glibc's aligned
allocation looks for more than it is asked for, so that a freed block does not even serve the next
tensor of its size. The most that was measured, rows of 48 to 1,024 tokens: 0.39 in float32 (a core
with AVX2; its matrix products take nothing from the heap) and 0.72 in bfloat16 (2 cores with
AVX512-BF16; what its products take would count as holes)."""
DECODED_ROW_TOKENS = 256
"""Positions of a decoded row, prompt and answer, where nothing else is known: prompts are not
bounded by a setting."""


@dataclass(frozen=True, kw_only=True)
class AdapterSize:
    """Rank and target modules of an adapter."""

    rank: int
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PassSize:
    """One forward and backward pass."""

    slots: int
    """Slots of the batch: a step of several passes has a sum of gradients for each, whether it
    takes part in this one or not."""
    tokens: int
    """Padding included."""
    scores: int
    """Sum over rows of length x length, padding included: attention scores of one head."""
    largest_scores: int
    """The same of the largest group of rows that is computed at once."""
    targets: int
    """Positions with a loss."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an engine holds at once, at most."""

    slots: int
    """0: nothing is trained."""
    adapter: AdapterSize
    policy: AdapterSize | None = None
    row_tokens: int
    """Longest training row."""
    pass_tokens: int
    """Tokens of a pass, within half a row."""
    decoded_rows: int
    decoded_tokens: int = DECODED_ROW_TOKENS
    gradient_checkpointing: bool = False
    """Gradient checkpointing."""

    @property
    def largest_pass(self) -> PassSize:
        """All rows as long as the longest, all paddings as large as they may be."""
        tokens = max(self.pass_tokens + self.row_tokens // 2, self.row_tokens)
        padded = tokens + MAX_CHUNK_TOKENS * self.slots
        scores = padded * self.row_tokens
        return PassSize(
            slots=self.slots, tokens=padded, scores=scores, largest_scores=scores, targets=tokens
        )


@dataclass(frozen=True, kw_only=True)
class PassEstimate:
    """Bytes of one training pass by part."""

    sums: int
    """Sums of the slots' gradients over passes."""
    activations: int
    """Kept for the backward, without attention."""
    attention: int
    """Attention probabilities kept for the backward."""
    work: int
    """What the backward of one layer takes beside."""
    logits: int
    """One chunk of the loss."""
    item_bytes: int
    """Of one value of the compute type."""

    @property
    def tensors(self) -> int:
        """All tensors that are alive at one time."""
        return self.sums + self.activations + self.attention + self.work + self.logits

    @property
    def holes(self) -> int:
        """What the allocator holds beside them."""
        return int(
            self.tensors * (FLOAT32_HOLES if self.item_bytes == FLOAT32_BYTES else BFLOAT16_HOLES)
        )

    @property
    def total(self) -> int:
        """All parts."""
        return self.tensors + self.holes


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by part. `str()` names them all on one line."""

    base: int
    """The frozen model."""
    policy: int
    """The policy adapter in the compute type."""
    slots: int
    """Masters, moments and gradients of all slots."""
    training: PassEstimate
    """The largest training pass."""
    cache: int
    """Keys and values of the decoded rows."""
    decode: int
    """Adapters, prefill and logits of the decoded rows."""
    gradient_checkpointing: bool
    """With gradient checkpointing."""

    @property
    def resident(self) -> int:
        """What stays from step to step."""
        return self.base + self.policy + self.slots

    @property
    def total(self) -> int:
        """The most that is held at one time."""
        return self.resident + max(self.training.total, self.cache + self.decode)

    def __str__(self) -> str:
        """Every part in MiB, on one line: it is a fact of a log record."""
        training = self.training
        checkpointing = "on" if self.gradient_checkpointing else "off"
        passes = _parts(
            ("sums of the slots' gradients", training.sums),
            ("activations", training.activations),
            ("attention probabilities", training.attention),
            ("work of one layer", training.work),
            ("logits of one chunk", training.logits),
            ("holes between them in the heap", training.holes),
        )
        decode = _parts(
            ("keys and values", self.cache), ("adapters, prefill and logits", self.decode)
        )
        resident = _parts(
            ("frozen base", self.base),
            ("policy adapter", self.policy),
            ("slots with masters, moments, gradients and copies", self.slots),
        )
        return (
            f"{resident}; one training pass, checkpointing {checkpointing}: "
            f"{_mib(training.total)} ({passes}); one decode: {_mib(self.cache + self.decode)} "
            f"({decode}); at most at one time: {_mib(self.total)}"
        )


def _parts(*sizes: tuple[str, int]) -> str:
    return ", ".join(f"{name} {_mib(size)}" for name, size in sizes)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def estimate(size: ModelSize, load: Workload) -> MemoryEstimate:
    """Bytes of a workload on a model, by part."""
    parameters = size.parameters(load.adapter.rank, load.adapter.targets)
    policy = (
        0
        if load.policy is None
        else size.item_bytes * size.parameters(load.policy.rank, load.policy.targets)
    )
    training = (
        estimate_pass(
            size,
            load.largest_pass,
            load.adapter,
            load.policy,
            gradient_checkpointing=load.gradient_checkpointing,
        )
        if load.slots
        else PassEstimate(
            sums=0, activations=0, attention=0, work=0, logits=0, item_bytes=size.item_bytes
        )
    )
    # as many adapters as are trained at once are evaluated together, and what has none beside them
    stacked = STACK_COPIES * (max(1, load.slots) + 1) * parameters * size.item_bytes
    decoded = load.decoded_rows * load.decoded_tokens
    prefilled = min(decoded, max(PASS_TOKENS, load.decoded_tokens))
    return MemoryEstimate(
        base=size.base_bytes,
        policy=policy,
        slots=load.slots * parameters * (SLOT_BYTES + size.item_bytes),
        training=training,
        cache=CACHE_COPIES * position_bytes(size) * decoded,
        decode=stacked
        + prefill_bytes(size, tokens=prefilled, keys=load.decoded_tokens)
        + load.decoded_rows * size.vocabulary * (size.item_bytes + 2 * FLOAT32_BYTES),
        gradient_checkpointing=load.gradient_checkpointing,
    )


def estimate_pass(
    size: ModelSize,
    shape: PassSize,
    adapter: AdapterSize,
    policy: AdapterSize | None,
    *,
    gradient_checkpointing: bool,
) -> PassEstimate:
    """Bytes of one training pass of slots of one shape, by part."""
    layer = shape.tokens * _saved_bytes(size, adapter, policy)
    probabilities = SAVED_PROBABILITIES * size.heads * shape.scores * size.item_bytes
    kept = (
        1 if gradient_checkpointing else size.layers
    )  # layers whose activations exist at one time
    inputs = size.layers * size.hidden if gradient_checkpointing else 0
    logits = min(CHUNK_TARGETS, shape.targets) * size.vocabulary
    work = max(
        WORKING_MLP_VALUES * size.intermediate * shape.tokens,
        WORKING_PROBABILITIES * size.heads * shape.largest_scores,
    )
    return PassEstimate(
        sums=shape.slots * size.parameters(adapter.rank, adapter.targets) * PASS_GRADIENT_BYTES,
        activations=kept * layer
        + shape.tokens * size.item_bytes * (inputs + OUTER_VALUES * size.hidden),
        attention=kept * probabilities,
        work=work * size.item_bytes,
        logits=logits * size.item_bytes + 2 * min(SOFTMAX_VALUES, logits) * FLOAT32_BYTES,
        item_bytes=size.item_bytes,
    )


def _saved_bytes(size: ModelSize, adapter: AdapterSize, policy: AdapterSize | None) -> int:
    """What one token keeps in one layer for the backward, without attention probabilities.

    A linear keeps its input only if it has an adapter; q, k, v share theirs, and so do gate and up.
    """
    adapted = {*adapter.targets, *(() if policy is None else policy.targets)}
    queries, keys = size.heads * size.head_dim, size.kv_heads * size.head_dim
    inputs = (
        ({"q_proj", "k_proj", "v_proj"}, size.hidden),
        ({"o_proj"}, queries),
        ({"gate_proj", "up_proj"}, size.hidden),
        ({"down_proj"}, size.intermediate),
    )
    values = sum(width for names, width in inputs if names & adapted) + adapter.rank * len(
        adapter.targets
    )
    values += queries + 2 * keys + SAVED_MLP_VALUES * size.intermediate  # attention keeps q, k, v
    return values * size.item_bytes + size.norm_values * size.item_bytes


def position_bytes(size: ModelSize) -> int:
    """Keys and values of one position of one row."""
    return 2 * size.layers * size.kv_heads * size.head_dim * size.item_bytes


def prefill_bytes(size: ModelSize, *, tokens: int, keys: int) -> int:
    """The widest moment of a pass over so many tokens of prompts, each with up to `keys` keys.

    That is one layer's MLP, or its scores in float32, their softmax and its copy in the compute
    type.
    """
    mlp = WORKING_DECODE_MLP_VALUES * size.intermediate * tokens * size.item_bytes
    return max(mlp, size.heads * tokens * keys * (2 * FLOAT32_BYTES + size.item_bytes))
