"""Peak memory of one setting of the engine, in a process of its own: `python -m benchmarks.memory_point --help`.

Prints one JSON object: the peak resident bytes after the model is loaded and after two full steps of every slot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoTokenizer

from benchmarks.scaling import equal_cases, time_steps
from seal.datasets import load_contexts
from seal.engine.model import FrozenModel
from seal.errors import PreconditionFailed

STEPS = 2
"""The second step finds the optimiser's state and all gradients in memory."""


def peak_bytes() -> int:
    """Largest resident set of this process so far. Raises PreconditionFailed where the system does not tell (it is Linux's VmHWM)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        raise PreconditionFailed("the peak of resident memory is read from /proc/self/status, which is not here", remedy="run it on Linux")
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
    return 1024 * int(lines["VmHWM"].split()[0])


def run(
    directory: Annotated[Path, typer.Option(help="Transformers directory of the model.")],
    slots: Annotated[int, typer.Option(min=1, help="Adapters in training.")],
    tokens: Annotated[int, typer.Option(min=4, help="Tokens per row.")],
) -> None:
    """Measure one point."""
    model = FrozenModel.load(directory, name="model", dtype=torch.bfloat16)
    loaded = peak_bytes()
    texts = [context.text for context in load_contexts("corpus://train")]
    time_steps(model, equal_cases(AutoTokenizer.from_pretrained(directory), texts, slots=slots, steps=STEPS, tokens=tokens))
    typer.echo(json.dumps({"loaded_bytes": loaded, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    typer.run(run)
