"""Trains in a process of its own and prints as JSON what that took.

How many resident bytes at most, and how many the memory model says.
"""

from __future__ import annotations

import json

from test_engine_training import request
from tiny_model import byte_tokenizer, tiny_transformer

from benchmarks.memory_point import forget_peak, memory_bytes
from seal.engine.allocator import keep_freed_memory
from seal.engine.job import make_job
from seal.engine.memory import AdapterSize, PassSize, Workload, estimate, estimate_pass
from seal.engine.model import FrozenModel
from seal.engine.training import TrainingBatch
from seal.settings import LoraSettings

SLOTS, STEPS, ROW_TOKENS = 8, 2, 255
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "head_dim": 32,
}
LORA = LoraSettings(rank=8, alpha=8, target_modules=("q_proj", "v_proj"))


def train(model: FrozenModel, *, slots: int, characters: int) -> int:
    """Every slot takes a few steps of one row; returns the tokens of a row."""
    batch = TrainingBatch(
        model,
        slots=slots,
        rank=LORA.rank,
        targets=LORA.target_modules,
        policy=None,
        max_pass_tokens=2048,
    )
    examples = tuple(("", "x" * characters) for _ in range(STEPS))
    for seed in range(slots):
        batch.admit(
            make_job(
                model,
                request(seed=seed, examples=examples, lora=LORA, batch_size=1, epochs=1),
                max_row_tokens=512,
            )
        )
    row_tokens = max(row.length for job in batch.jobs.values() for row in job.rows)
    while batch.jobs:
        batch.step()
    return row_tokens


def main() -> None:
    """A small training comes first: code and threads that come into memory with it do not count."""
    keep_freed_memory()
    model = FrozenModel(tiny_transformer(**SIZES), byte_tokenizer(), name="tiny-llama")
    train(model, slots=1, characters=8)
    before = memory_bytes("VmRSS")
    forget_peak()
    row_tokens = train(model, slots=SLOTS, characters=ROW_TOKENS)
    taken = memory_bytes("VmHWM") - before
    adapter = AdapterSize(rank=LORA.rank, targets=LORA.target_modules)
    tokens, scores = SLOTS * row_tokens, SLOTS * row_tokens**2
    shape = PassSize(
        slots=SLOTS, tokens=tokens, scores=scores, largest_scores=scores, targets=tokens
    )
    load = Workload(
        slots=SLOTS, adapter=adapter, row_tokens=row_tokens, pass_tokens=tokens, decoded_rows=0
    )
    needed = estimate_pass(model.size, shape, adapter, None, gradient_checkpointing=False)
    slots = estimate(model.size, load).slots
    print(
        json.dumps(
            {
                "taken": taken,
                "tensors": slots + needed.tensors - needed.sums,
                "total": slots + needed.total,
            }
        )
    )


if __name__ == "__main__":
    main()
