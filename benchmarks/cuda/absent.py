"""What a training step asks of a GPU, counted without one.

torch's fake tensors have a shape, a type and a device but no memory, and torch lets a device be
registered that does not exist. A step of the real shape then runs in seconds on any machine: every
operation passes by and is counted, a tensor that lies on the wrong side is an error, and so is a
reading that nobody expects. Widths, strides and types are checked as torch's shape functions check
them. What it cannot show: time, and what a kernel itself refuses.

`python -m benchmarks.cuda.absent --help` prints the counts as JSON. The device is registered for
the whole process and for good, so it is a program of its own.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from benchmarks.cuda.models import inner_loop, random_transformer
from benchmarks.cuda.plan import EDITS, EPOCHS, INNER, QWEN_7B, SMOLLM_135M, TINY_SHAPE, Shape
from benchmarks.random_model import byte_tokenizer
from seal.engine.job import make_job
from seal.engine.kernels import PackedKernels
from seal.engine.memory import AdapterSize, PassSize, estimate_pass
from seal.engine.model import FrozenModel
from seal.engine.norm import FrozenRMSNorm
from seal.engine.training import TrainingBatch
from seal.settings import EngineSettings

DEVICE = "absent"
SHAPES: dict[str, Shape] = {"7b": QWEN_7B, "135m": SMOLLM_135M, "tiny": TINY_SHAPE}
_LAUNCH_NOTHING = frozenset(
    {
        "prim::device",
        "aten::empty",
        "aten::empty_like",
        "aten::empty_strided",
        "aten::new_empty",
        "aten::_unsafe_view",
    }
)
_READINGS: dict[Callable[..., Any], Any] = {
    torch.Tensor.item: 0.0,
    torch.Tensor.__float__: 0.0,
    torch.Tensor.__bool__: True,
}
"""What lets the host wait, and what is read: nothing that is computed is known."""


@dataclass(frozen=True)
class Counts:
    """Of one training step."""

    launches: int
    """Operations that do something on the device; most are one kernel, few are several."""
    waits: int
    """Readings of the device."""
    copies: int
    """From the host to the device; none is waited for."""
    tokens: int
    targets: int
    peak_bytes: int
    """Tensors alive at one time, without what the model and the slots hold."""
    estimated_bytes: int
    """The memory model's word for it, holes included."""
    by_operation: dict[str, int]


class _Reading(TorchFunctionMode):
    """Answers every reading of the device and counts it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _READINGS or args[0].device.type != DEVICE:
            return func(*args, **(kwargs or {}))
        self.waits += 1
        return _READINGS[func]

    def tolist(self, tensor: torch.Tensor) -> list[float]:
        """In place of the fake tensors' own, which reads them one by one."""
        self.waits += 1
        return [0.0] * tensor.numel()


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations on the device and the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.copies = 0
        self.current = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == DEVICE for tensor in (*made, *given)):
            name = func.name().split(".")[0]
            if name == "aten::_to_copy" and given[0].device.type != DEVICE:
                self.copies += 1
            elif not func.is_view and name not in _LAUNCH_NOTHING:
                self.operations[name] += 1
            known = {tensor.untyped_storage()._cdata for tensor in given}
            for tensor in made:
                storage = tensor.untyped_storage()
                if tensor.device.type == DEVICE and storage._cdata not in known:
                    self._hold(storage)
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.current += size
            self.peak = max(self.peak, self.current)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.current -= size


def count_step(shape: Shape, *, slots: int) -> Counts:
    """The second step of so many slots with rows of the logged lengths, packed, in bfloat16.

    The device must be registered.
    """
    reading = _Reading()
    # a number that torch remembers is copied for real, which this device cannot
    with (
        patch("torch._subclasses.fake_tensor.CONSTANT_NUMEL_LIMIT", 0),
        patch.object(FakeTensor, "tolist", lambda tensor: reading.tolist(tensor)),
        FakeTensorMode(),
        reading,
    ):
        transformer = random_transformer(shape, device="cpu", dtype=torch.bfloat16)
        _move(transformer)
        with (
            patch("seal.engine.model.frozen_norm", _llama_norm),
            patch("seal.engine.model.choose_kernels", lambda *_, **__: PackedKernels()),
        ):
            model = FrozenModel(transformer, byte_tokenizer(), name=shape.name)
        batch = TrainingBatch(
            model,
            slots=slots,
            rank=INNER.rank,
            targets=INNER.target_modules,
            policy=None,
            max_pass_tokens=EngineSettings().max_pass_tokens,
        )
        for slot in range(slots):
            request = inner_loop(EDITS[slot % len(EDITS)], seed=slot, lora=INNER, epochs=EPOCHS)
            job = make_job(model, request, max_row_tokens=EngineSettings().max_row_tokens)
            with unset_fake_temporarily():
                job.order[0]  # the host draws an epoch's order, and keeps it
            batch.admit(job)
        batch.advance()
        before, reading.waits = sum(job.tokens for job in batch.jobs.values()), 0
        targets = sum(row.targets for job in batch.jobs.values() for row in job.next_rows())
        with _Counting() as counting:
            batch.advance()
        tokens = sum(job.tokens for job in batch.jobs.values()) - before
    return Counts(
        launches=counting.operations.total(),
        waits=reading.waits,
        copies=counting.copies,
        tokens=tokens,
        targets=targets,
        peak_bytes=counting.peak,
        estimated_bytes=estimate_pass(
            model.size,
            PassSize(slots=slots, tokens=tokens, scores=0, largest_scores=0, targets=targets),
            AdapterSize(rank=INNER.rank, targets=INNER.target_modules),
            None,
            gradient_checkpointing=False,
        ).total,
        by_operation=dict(counting.operations.most_common()),
    )


def _move(model: nn.Module) -> None:
    """Put a model of fake tensors on the device, tied weights tied; `Module.to` cannot."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in moved:
                there = nn.Parameter(parameter.detach().to(DEVICE), requires_grad=False)
                moved[id(parameter)] = moved[id(there)] = there
            setattr(module, name, moved[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(DEVICE))


class _FusedNorm(FrozenRMSNorm):
    """What torch's kernel on CUDA launches: fake tensors take it apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        return _OneLaunch.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class _OneLaunch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        return grad_outputs[0].clone()


def _llama_norm(module: nn.Module) -> FrozenRMSNorm | None:
    """What the engine finds out by trying, for which fake tensors have no values."""
    if not type(module).__name__.endswith("RMSNorm"):
        return None
    return _FusedNorm(module.weight.detach(), float(module.variance_epsilon))  # type: ignore[operator,arg-type]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda.absent", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 32])
    chosen = parser.parse_args()
    _setup_privateuseone_for_python_backend(DEVICE)
    counted = {
        slots: asdict(count_step(SHAPES[chosen.shape], slots=slots)) for slots in chosen.slots
    }
    print(json.dumps(counted, indent=1))


if __name__ == "__main__":
    main()
