"""What all figures share: the setting, interleaving, engines, and how a list of trainings is timed.

Machines drift (other tenants, clocks, heat), so both sides of a comparison take turns in one
process: every round runs each side once, every other round in reverse order, and a figure is the
median over rounds of the two sides' ratio within a round. Each side's turn has the process's OpenMP
threads to itself (`seal.engine.threads`): it runs in a thread of its own and opens its own engine.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.data import Cases, EditCase
from benchmarks.figures import GOALS, Curve, Figure, Provenance, Side
from benchmarks.sizes import Sizes
from controller_svc.cli.machine import describe_machine
from seal.config import load_run
from seal.engine import Engine, TrainingProgress, TrainingRequest, TrainingResult
from seal.engine.model import FrozenModel
from seal.engine.peak import measure_gemm_peak
from seal.engine.precision import dtype_name
from seal.engine.threads import ALL_THREADS, in_parallel
from seal.errors import Internal, Transient
from seal.outcomes import Outcome
from seal.restem.seeds import derive_seed
from seal.settings import EngineSettings, InnerLoopSettings, OptimizerSettings


class Dtype(StrEnum):
    """Compute types, as a command line offers them."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


PUBLISHED: InnerLoopSettings = load_run(None, {"profile": "published"}).spec.inner
"""The published inner loop: rank 32, alpha 64 on q_proj and v_proj, AdamW at 1e-3 linear to 0,
batch 1, clip 1.0."""

Report = Callable[[str, int, int], None]
"""Called with (what is measured, rounds done, rounds in all)."""

_HOLD_TIMEOUT_SECONDS, _STREAM_TIMEOUT_SECONDS = 120.0, 3600.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every figure is measured on."""

    model: str
    """Name or source of the base model, as requests give it."""
    directory: Path
    """Its transformers directory."""
    dtype: torch.dtype
    """Both sides compute in it, except in P5."""
    sizes: Sizes
    cases: Cases
    provenance: Provenance
    report: Report


@dataclass(frozen=True)
class Timing:
    """One side of one round."""

    seconds: float
    count: float
    """What `seconds` are shared by: adapter-steps, tokens, adapters."""
    tokens: int = 0
    """Real tokens."""
    teraflops: float = 0.0
    """GEMM peak in the compute type, measured around it."""
    slots_in_use: float = 0.0
    """Adapters in training at a time, on average over the seconds: what the thin end of a list
    leaves of the slots."""

    @property
    def each(self) -> float:
        """Seconds per unit."""
        return self.seconds / self.count


def interleave(
    sides: Mapping[str, Callable[[int], Timing]], *, rounds: int, report: Callable[[int, int], None]
) -> dict[str, tuple[Timing, ...]]:
    """Timings by side: every side runs once per round, in turn forwards and backwards.

    A side is given the round's number.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            report(sum(map(len, timings.values())), rounds * len(sides))
            gc.collect()
            timings[name].append(in_parallel(partial(sides[name], number)))
    report(rounds * len(sides), rounds * len(sides))
    return {name: tuple(each) for name, each in timings.items()}


@contextmanager
def engine_on(model: FrozenModel, *, slots: int, evaluation_rows: int = 192) -> Iterator[Engine]:
    """An engine with room for every request of a figure.

    Engines on one model must not work at the same time.
    """
    settings = EngineSettings(slots=slots, evaluation_rows=evaluation_rows, max_queue=100_000)
    engine = Engine(model, settings)
    try:
        yield engine
    finally:
        engine.close()


def load_model(setting: Setting, dtype: torch.dtype | None = None) -> FrozenModel:
    """The engine's base model, in the setting's type unless another is given."""
    return FrozenModel.load(setting.directory, name=setting.model, dtype=dtype or setting.dtype)


def training_request(
    case: EditCase,
    *,
    epochs: int,
    seed: int,
    inner: InnerLoopSettings = PUBLISHED,
    pad_to_tokens: int = 0,
) -> TrainingRequest:
    """One edit's training with the published settings but for the number of epochs.

    `pad_to_tokens` as in OptimizerSettings.
    """
    changes: dict[str, object] = {"epochs": epochs, "pad_to_tokens": pad_to_tokens}
    return TrainingRequest(
        run="benchmark",
        policy=None,
        examples=case.examples,
        lora=inner.lora,
        optimizer=OptimizerSettings.model_validate(
            inner.optimizer.model_dump(by_alias=False) | changes
        ),
        init_seed=derive_seed(seed, "init", case.case_id),
        order_seed=derive_seed(seed, "order", case.case_id),
    )


def train_all(engine: Engine, requests: Sequence[TrainingRequest]) -> tuple[TrainingResult, ...]:
    """Queue all requests at once and wait for the last; raises Internal if one did not end well."""
    tasks = [engine.train(request) for request in requests]
    results = tuple(task.future.result() for task in tasks)
    if bad := [result.outcome for result in results if result.outcome is not Outcome.OK]:
        raise Internal(
            f"{len(bad)} of {len(results)} trainings ended as {bad[0]}",
            remedy="use a lower learning rate",
        )
    return results


def time_stream(engine: Engine, requests: Sequence[TrainingRequest]) -> Timing:
    """Seconds and adapter-steps while all slots are in use.

    They count from the first request until a slot is left empty: the first training ends after the
    last was admitted (with one slot that is the last itself). A server's requests neither begin nor
    end. What a finite list adds, the thinning out after that, would measure the list: one edit with
    59 rows among edits with nine. Tokenising (of all, before the first step), admission, initial
    weights and the export of those that end are in it. The trainings that are not done by then are
    cancelled, and only steps that were done count.
    """
    steps: list[list[tuple[float, int]]] = [[] for _ in requests]
    begun = threading.Event()

    def watch(index: int) -> Callable[[TrainingProgress], None]:
        def on_progress(progress: TrainingProgress) -> None:
            steps[index].append((time.perf_counter(), progress.tokens))
            if all(steps):
                begun.set()

        return on_progress

    with held(engine, requests[0]):
        started = time.perf_counter()
        tasks = [engine.train(request, watch(index)) for index, request in enumerate(requests)]
    if not begun.wait(_STREAM_TIMEOUT_SECONDS):
        raise Transient(
            "the engine did not begin all trainings", remedy="is it busy with something else?"
        )
    in_slots = [task.future for task in tasks if not task.future.done()]
    left = wait(in_slots, timeout=_STREAM_TIMEOUT_SECONDS, return_when=FIRST_COMPLETED)
    ended = time.perf_counter()
    if in_slots and not left.done:
        raise Transient("the engine ended no training", remedy="is it busy with something else?")
    for task in tasks:
        task.cancel()
    results = [task.future.result() for task in tasks]
    within = [[tokens for at, tokens in done if at <= ended] for done in steps]
    return Timing(
        ended - started,
        sum(map(len, within)),
        sum(max(done, default=0) for done in within),
        slots_in_use=sum(result.seconds for result in results) / (time.perf_counter() - started),
    )


@contextmanager
def held(engine: Engine, request: TrainingRequest) -> Iterator[None]:
    """Keep the engine's thread busy until the block ends, so that what is queued starts together.

    `request` is a small training; the thread waits in its progress report. Raises Transient if the
    engine does not come to it.
    """
    entered, release = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        entered.set()
        release.wait()

    task = engine.train(request, on_progress=wait)
    try:
        if not entered.wait(_HOLD_TIMEOUT_SECONDS):
            raise Transient(
                "the engine did not begin a training", remedy="is it busy with something else?"
            )
        yield
    finally:
        task.cancel()
        release.set()


def ratios(above: Sequence[Timing], below: Sequence[Timing]) -> tuple[float, ...]:
    """Ratio of the seconds per unit, round by round."""
    return tuple(one.each / other.each for one, other in zip(above, below, strict=True))


def make_figure(
    setting: Setting,
    key: str,
    samples: Sequence[float],
    *,
    sides: Sequence[Side] = (),
    details: Mapping[str, str] | None = None,
    sizes: Sequence[str] = (),
    value: float | None = None,
    reading: str = "median of the rounds' ratios",
    met: bool | None = None,
) -> Figure:
    """A figure of the table, held against its goal.

    `value`: the samples' median unless given; `sizes`: names of those it depends on; `met`: what
    counts where the value alone does not decide.
    """
    goal = GOALS[key].on(matrix_units=has_matrix_units())
    value = median(samples) if value is None else value
    provenance = setting.provenance
    return Figure(
        title=goal.title,
        value=value,
        unit=goal.unit,
        samples=tuple(samples),
        command=provenance.command,
        reading=reading,
        goal=goal.must_text,
        aim=goal.aim_text,
        met=goal.met(value) if met is None and goal.relation else met,
        sides=tuple(sides),
        details=dict(details or {}),
        sizes={name: getattr(setting.sizes, name) for name in sizes},
        machine=provenance.machine,
        data=provenance.data,
        model=provenance.model,
    )


def make_curves(
    setting: Setting,
    title: str,
    curves: Sequence[Curve],
    *,
    samples: Sequence[float],
    unit: str,
    reading: str,
    sizes: Sequence[str],
) -> Figure:
    """A figure that is curves and has no goal; its value is the samples' median."""
    provenance = setting.provenance
    return Figure(
        title=title,
        value=median(samples),
        unit=unit,
        samples=tuple(samples),
        command=provenance.command,
        reading=reading,
        curves=tuple(curves),
        sizes={name: getattr(setting.sizes, name) for name in sizes},
        machine=provenance.machine,
        data=provenance.data,
        model=provenance.model,
    )


def has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 tiles in AMX; benchmarks here run on CPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " amx_bf16" in cpuinfo.read_text(encoding="utf-8")


def machine_line(dtype: torch.dtype) -> str:
    """What the figures were measured on, in one line; measures the GEMM peak."""
    peak = measure_gemm_peak(dtype=dtype)
    machine = describe_machine(device="cpu", dtype=dtype_name(dtype), gemm_teraflops=peak)
    versions = ", ".join(
        f"{name} {machine.versions[name]}" for name in ("python", "torch", "transformers")
    )
    return (
        f"{machine.processor}, {machine.cores} cores, torch threads {ALL_THREADS}, "
        f"{machine.memory_gib:.0f} GiB, "
        f"{machine.system}, {versions}, {machine.dtype} GEMM peak {peak:.2f} TFLOP/s"
    )
