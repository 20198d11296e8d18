"""Peak memory of one setting of the engine, in a process of its own.

`python -m benchmarks.memory_point --help`. Prints one JSON object: the resident bytes once the
model is loaded, the peak from then on to the end of two full steps of every slot, and what the
memory model says of the difference.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Annotated

import typer
from transformers import AutoTokenizer

from benchmarks.common import PUBLISHED, Dtype
from benchmarks.scaling import equal_cases, time_steps
from seal.datasets import load_contexts
from seal.engine.allocator import keep_freed_memory
from seal.engine.memory import AdapterSize, PassSize, Workload, estimate, estimate_pass
from seal.engine.model import FrozenModel
from seal.engine.precision import compute_dtype
from seal.errors import PreconditionFailed
from seal.settings import EngineSettings

STEPS = 2
"""The second step finds the optimiser's state and all gradients in memory."""


def memory_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process. Raises PreconditionFailed where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        raise PreconditionFailed(
            "resident memory is read from /proc/self/status, which is not here",
            remedy="run it on Linux",
        )
    lines = dict(
        line.split(":", 1)
        for line in status.read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    return 1024 * int(lines[field].split()[0])


def forget_peak() -> None:
    """Let VmHWM begin anew at VmRSS (proc(5)).

    While a model is loaded and converted, more may be resident than in a small training.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def estimate_bytes(model: FrozenModel, *, slots: int, row_tokens: int) -> int:
    """What the memory model says of training rows of one length, beside the base model.

    The adapter is the published one.
    """
    adapter = AdapterSize(rank=PUBLISHED.lora.rank, targets=PUBLISHED.lora.target_modules)
    tokens = min(slots * row_tokens, max(row_tokens, EngineSettings().max_pass_tokens))
    rows = -(-tokens // row_tokens)
    scores = rows * row_tokens**2
    shape = PassSize(
        slots=slots, tokens=tokens, scores=scores, largest_scores=scores, targets=tokens
    )
    load = Workload(
        slots=slots, adapter=adapter, row_tokens=row_tokens, pass_tokens=tokens, decoded_rows=0
    )
    return (
        estimate(model.size, load).slots
        + estimate_pass(model.size, shape, adapter, None, gradient_checkpointing=False).total
    )


def run(
    directory: Annotated[Path, typer.Option(help="Transformers directory of the model.")],
    slots: Annotated[int, typer.Option(min=1, help="Adapters in training.")],
    tokens: Annotated[int, typer.Option(min=4, help="Tokens per row.")],
    dtype: Annotated[Dtype, typer.Option(help="Compute type.")] = Dtype.AUTO,
) -> None:
    """Measure one point."""
    keep_freed_memory()
    model = FrozenModel.load(directory, name="model", dtype=compute_dtype(dtype.value, "cpu"))
    gc.collect()
    loaded = memory_bytes("VmRSS")
    forget_peak()
    texts = [context.text for context in load_contexts("corpus://train")]
    time_steps(
        model,
        equal_cases(
            AutoTokenizer.from_pretrained(directory), texts, slots=slots, steps=STEPS, tokens=tokens
        ),
    )
    estimated = estimate_bytes(model, slots=slots, row_tokens=tokens)
    typer.echo(
        json.dumps(
            {
                "loaded_bytes": loaded,
                "peak_bytes": memory_bytes("VmHWM"),
                "estimated_bytes": estimated,
            }
        )
    )


if __name__ == "__main__":
    typer.run(run)
