"""What the parts of a run share: the plan, the clock, the models that are in memory, the peak."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field

import torch

from benchmarks.cuda.models import frozen_model
from benchmarks.cuda.plan import Plan, Shape
from benchmarks.flops import Weights
from seal.engine.model import FrozenModel
from seal.engine.training import TrainingBatch
from seal.settings import LoraSettings


class Skipped(Exception):
    """What is left of a part is not measured; the message says why."""


@dataclass
class Bench:
    """The state of one run."""

    plan: Plan
    deadline: float = 0.0
    """`time.monotonic()` at which the running part ends."""
    gemm_teraflops: float = float("nan")
    """Peak of a plain product, once it is measured."""
    copy_bytes_per_second: float = float("nan")
    """Bytes read and written by a plain copy, once it is measured."""
    _models: dict[str, FrozenModel] = field(default_factory=dict)

    @property
    def on_cuda(self) -> bool:
        """Whether there is a GPU under it."""
        return self.plan.device == "cuda"

    def check_time(self, what: str, *, seconds: float = 0.0) -> None:
        """Raise Skipped if `seconds` more are not left for `what`."""
        if time.monotonic() + seconds > self.deadline:
            raise Skipped(f"{what}: the part's time was spent")

    def model(self, shape: Shape) -> FrozenModel:
        """The engine's model of a shape; one is in memory at a time."""
        if shape.name not in self._models:
            self.forget()
            self._models[shape.name] = frozen_model(
                shape, device=self.plan.device, dtype=self.plan.dtype
            )
        return self._models[shape.name]

    def forget(self) -> None:
        """Give all memory back."""
        self._models.clear()
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.on_cuda:
            torch.cuda.synchronize()

    def allocated(self, *, peak: bool = False) -> int:
        """Bytes of tensors on the device, now or at most since `forget_peak`; 0 on a CPU."""
        if not self.on_cuda:
            return 0
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()


@dataclass(frozen=True)
class Timed:
    """Steps of a batch."""

    seconds: float
    steps: int
    tokens: int
    """Real tokens of all slots."""


def time_steps(bench: Bench, batch: TrainingBatch, *, steps: int) -> Timed:
    """Up to so many steps after two that warm up; fewer if the part's time is spent by then."""
    for _ in range(2):
        batch.step()
    bench.wait()
    before = sum(job.tokens for job in batch.jobs.values())
    started, done = time.perf_counter(), 0
    while done < steps and (done == 0 or time.monotonic() < bench.deadline):
        batch.advance()
        done += 1
    bench.wait()
    seconds = time.perf_counter() - started
    return Timed(seconds, done, sum(job.tokens for job in batch.jobs.values()) - before)


def weights_of(model: FrozenModel, lora: LoraSettings) -> Weights:
    """What P3 counts (`benchmarks.flops`), of a model in memory."""
    adapted = model.target_layers(lora.target_modules).values()
    return Weights(
        linears=sum(size.in_features * size.out_features for size in model.layers.values()),
        lora=sum(lora.rank * (size.in_features + size.out_features) for size in adapted),
        head=model.head_V_d.numel(),
    )
