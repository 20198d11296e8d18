"""Parts (b), (c), (d), (f): the card's peak, training steps, the published style, the M-step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import torch

from benchmarks.cuda.bench import Bench, Skipped, Timed, time_steps, weights_of
from benchmarks.cuda.models import inner_loop, m_step, random_transformer, text_of
from benchmarks.cuda.plan import EPOCHS, INNER, OUTER
from benchmarks.cuda.report import Line
from benchmarks.random_model import byte_tokenizer
from seal.engine.job import make_job
from seal.engine.memory import AdapterSize, PassSize, Workload, estimate, estimate_pass
from seal.engine.model import FrozenModel
from seal.engine.training import TrainingBatch
from seal.settings import EngineSettings, LoraSettings, OptimizerSettings

GIB = 2**30
REPEATS = 20


def measure_peaks(bench: Bench) -> Iterator[Line]:
    """A square product in the compute type, and a copy of memory."""
    plan, size = bench.plan, bench.plan.gemm_size
    left, right = (torch.randn(size, size, device=plan.device, dtype=plan.dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = _best(bench, lambda: torch.mm(left, right, out=out))
    bench.gemm_teraflops = 2 * size**3 / seconds / 1e12
    yield Line(
        name=f"product of {size} x {size} matrices",
        value=bench.gemm_teraflops,
        unit="TFLOP/s",
        arithmetic="H100 SXM and H200 SXM: 989 in dense bfloat16 by their data sheets",
    )
    source = torch.ones(plan.copy_bytes, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    bench.copy_bytes_per_second = 2 * plan.copy_bytes / _best(bench, lambda: target.copy_(source))
    yield Line(
        name="copy, bytes read and written",
        value=bench.copy_bytes_per_second / 1e12,
        unit="TB/s",
        arithmetic="by their data sheets: H100 SXM 3.35, H200 SXM 4.8",
    )


def _best(bench: Bench, work: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls after one that warms up."""
    work()
    best = float("inf")
    for _ in range(REPEATS):
        bench.wait()
        started = time.perf_counter()
        work()
        bench.wait()
        best = min(best, time.perf_counter() - started)
    return best


def measure_steps(bench: Bench) -> Iterator[Line]:
    """The inner loop's training step, by slots."""
    model = bench.model(bench.plan.large)
    steps_per_edit = EPOCHS * fmean(map(len, bench.plan.edits))
    for slots in bench.plan.slots:
        bench.check_time(f"{slots} slots", seconds=2)
        held = bench.allocated()
        bench.forget_peak()
        batch = _inner_batch(bench, model, slots)
        timed = time_steps(bench, batch, steps=bench.plan.steps)
        yield from _step_lines(bench, model, timed, f"{slots} slots", INNER, slots)
        yield Line(
            name=f"{slots} slots: an edit of {EPOCHS} epochs",
            value=timed.seconds / timed.steps / slots * steps_per_edit,
            unit="s",
            arithmetic=f"{steps_per_edit:.0f} steps; published: 28.8 to 45 s on two H100",
        )
        if bench.on_cuda:
            yield _memory_line(
                bench.allocated(peak=True) - held,
                model,
                slots=slots,
                lora=INNER,
                rows=bench.plan.edits,
            )
        del batch


def _inner_batch(bench: Bench, model: FrozenModel, slots: int) -> TrainingBatch:
    """Edits of the logged lengths, none of which ends while it is timed."""
    plan = bench.plan
    batch = _batch(model, slots, INNER)
    for slot in range(slots):
        lengths = plan.edits[slot % len(plan.edits)]
        epochs = max(EPOCHS, -(-(plan.steps + 3) // len(lengths)))
        request = inner_loop(lengths, seed=1000 * slot, lora=INNER, epochs=epochs)
        batch.admit(make_job(model, request, max_row_tokens=EngineSettings().max_row_tokens))
    return batch


def _batch(model: FrozenModel, slots: int, lora: LoraSettings) -> TrainingBatch:
    return TrainingBatch(
        model,
        slots=slots,
        rank=lora.rank,
        targets=lora.target_modules,
        policy=None,
        max_pass_tokens=EngineSettings().max_pass_tokens,
    )


def _step_lines(
    bench: Bench, model: FrozenModel, timed: Timed, name: str, lora: LoraSettings, rows: int
) -> Iterator[Line]:
    """Seconds of a step beside its arithmetic and its bytes, and the share of the peak."""
    weights = weights_of(model, lora)
    tokens = timed.tokens / timed.steps
    flop = weights.training_flop(tokens=round(tokens), targets=max(0, round(tokens) - rows))
    computing = 1e3 * flop / bench.gemm_teraflops / 1e12
    reading = 1e3 * 2 * model.size.base_bytes / bench.copy_bytes_per_second
    yield Line(
        name=f"{name}: a step",
        value=1e3 * timed.seconds / timed.steps,
        unit="ms",
        arithmetic=f"{tokens:.0f} tokens: {computing:.1f} ms of products at the measured peak, "
        f"{reading:.1f} ms to read the weights twice at the measured bandwidth",
    )
    yield Line(
        name=f"{name}: share of the peak",
        value=100 * flop * timed.steps / timed.seconds / 1e12 / bench.gemm_teraflops,
        unit="%",
        arithmetic=f"{flop / 1e12:.2f} TFLOP a step",
    )


def _memory_line(
    taken: int,
    model: FrozenModel,
    *,
    slots: int,
    lora: LoraSettings,
    rows: tuple[tuple[int, ...], ...],
) -> Line:
    """Peak beside the model, against the memory model for the fullest pass of these rows."""
    adapter = AdapterSize(rank=lora.rank, targets=lora.target_modules)
    longest = max(max(lengths) for lengths in rows)
    tokens = min(slots * longest, max(longest, EngineSettings().max_pass_tokens))
    shape = PassSize(slots=slots, tokens=tokens, scores=0, largest_scores=0, targets=tokens)
    load = Workload(
        slots=slots, adapter=adapter, row_tokens=longest, pass_tokens=tokens, decoded_rows=0
    )
    one_pass = estimate_pass(model.size, shape, adapter, None, gradient_checkpointing=False)
    slot_bytes = estimate(model.size, load).slots
    return Line(
        name=f"{slots} slots: memory beside the model",
        value=taken / GIB,
        unit="GiB",
        arithmetic=f"memory model: slots {slot_bytes / GIB:.2f}, a pass of {tokens} tokens at most "
        f"{one_pass.tensors / GIB:.2f} and holes {one_pass.holes / GIB:.2f}",
        passed=taken <= slot_bytes + one_pass.total,
    )


def measure_reference(bench: Bench) -> Iterator[Line]:
    """Trainer and PEFT on the same shape, rows padded, one adapter, batch 1."""
    try:
        from benchmarks.reference import ReferenceTrainer
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed here") from error
    plan = bench.plan
    bench.forget()
    trainer = ReferenceTrainer(
        random_transformer(plan.large, device=plan.device, dtype=plan.dtype, attention="sdpa"),
        byte_tokenizer(),
        lora=INNER,
        optimizer=OptimizerSettings(),
        row_tokens=plan.reference_tokens,
    )
    lengths = plan.edits[0]
    texts = [text_of(count - 1, row) for row, count in enumerate(lengths)]
    trainer.step_seconds(texts, steps=2)
    bench.check_time("the timed steps", seconds=5)
    seconds = trainer.step_seconds(texts, steps=plan.reference_steps) / plan.reference_steps
    steps_per_edit = EPOCHS * fmean(map(len, plan.edits))
    yield Line(
        name=f"a step padded to {plan.reference_tokens} tokens",
        value=1e3 * seconds,
        unit="ms",
        arithmetic=f"mean of {plan.reference_steps} steps",
    )
    yield Line(
        name=f"an edit of {EPOCHS} epochs, extrapolated",
        value=seconds * steps_per_edit,
        unit="s",
        arithmetic=f"{steps_per_edit:.0f} such steps; Trainer's start and evaluation not counted",
    )


def measure_m_step(bench: Bench) -> Iterator[Line]:
    """One adapter of rank 64 on all projections, some long rows a step."""
    plan = bench.plan
    model = bench.model(plan.large)
    batch = _batch(model, 1, OUTER)
    request = m_step(plan.outer_tokens, rows=plan.outer_rows, steps=plan.steps + 3, lora=OUTER)
    batch.admit(make_job(model, request, max_row_tokens=EngineSettings().max_row_tokens))
    held = bench.allocated()
    bench.forget_peak()
    timed = time_steps(bench, batch, steps=plan.steps)
    yield from _step_lines(
        bench,
        model,
        timed,
        f"{plan.outer_rows} rows",
        OUTER,
        plan.outer_rows * plan.outer_tokens[0],
    )
    yield Line(name="tokens a second", value=timed.tokens / timed.seconds, unit="tokens/s")
    if bench.on_cuda:
        yield Line(
            name="memory of the passes", value=(bench.allocated(peak=True) - held) / GIB, unit="GiB"
        )
