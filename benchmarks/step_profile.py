"""The curve `step`.

Where the time of a training step goes, with one slot and with all, by torch's profiler. Steps of
real edits (the published settings, an epoch each) in a `TrainingBatch` that is driven directly,
`profile_steps` of them after one that does not count. Every operation's own time goes to the part
that it is called for. The profiler delays every operation by some microseconds, which the parts of
many small ones show: the sum is more than P2's time of a step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common import PUBLISHED, Setting, load_model, make_curves, training_request
from benchmarks.data import EditCase
from benchmarks.figures import CURVES, Curve, Figures
from seal.engine.job import make_job
from seal.engine.model import FrozenModel
from seal.engine.threads import in_parallel
from seal.engine.training import LOSS_SPAN, UPDATE_SPAN, TrainingBatch
from seal.settings import EngineSettings

KEYS = ("step",)
STEP_SPAN = "benchmarks.step"
FROZEN, HEAD, REST = (
    "frozen linears",
    "head and loss",
    "activations, rotary embedding, residuals, Python",
)
SPANS = (
    (LOSS_SPAN, HEAD),
    (UPDATE_SPAN, "clipping and AdamW"),
    ("PackedAttention", "attention"),
    ("RMSNorm", "norms"),
    ("SlotLinear", "adapters"),
)
"""Part of a name -> part of a step; an operation belongs to the first that it or a caller of it
has."""
PRODUCTS = ("aten::mm", "aten::addmm")
"""Matrix products outside the head are the frozen linears': the adapters' are batched."""


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Profile a step at both ends."""
    sizes = setting.sizes
    model = load_model(setting)
    parts: dict[int, dict[str, float]] = {}
    for done, slots in enumerate((1, sizes.slots)):
        setting.report("profile of a step", done, 2)
        parts[slots] = in_parallel(
            partial(_profile, model, setting.cases.take(slots), sizes.profile_steps)
        )
    setting.report("profile of a step", 2, 2)
    names = sorted(
        {name for each in parts.values() for name in each},
        key=lambda name: -parts[sizes.slots].get(name, 0.0),
    )
    curves = [
        Curve(
            name=name,
            x="slots",
            y="ms per adapter-step",
            points=tuple((float(slots), 1e3 * parts[slots].get(name, 0.0)) for slots in parts),
        )
        for name in names
    ]
    shares = [100 * (each[FROZEN] + each[HEAD]) / sum(each.values()) for each in parts.values()]
    figure = make_curves(
        setting,
        CURVES["step"],
        curves,
        samples=shares,
        unit="%",
        reading=f"share of the frozen matrix products, head included, in a step of {sizes.slots} "
        f"slots; samples: 1 and {sizes.slots} slots",
        sizes=("slots", "profile_steps"),
    )
    whole = ", ".join(
        f"{1e3 * sum(each.values()):.0f} ms with {slots} slot(s)" for slots, each in parts.items()
    )
    return {
        "step": figure.model_copy(
            update={"value": shares[-1], "details": {"all parts of an adapter-step": whole}}
        )
    }


def _profile(model: FrozenModel, cases: Sequence[EditCase], steps: int) -> dict[str, float]:
    """Seconds per adapter-step, by part."""
    lora = PUBLISHED.lora
    batch = TrainingBatch(
        model,
        slots=len(cases),
        rank=lora.rank,
        targets=lora.target_modules,
        policy=None,
        max_pass_tokens=EngineSettings().max_pass_tokens,
    )
    for case in cases:
        batch.admit(
            make_job(
                model,
                training_request(case, epochs=steps + 1, seed=0),
                max_row_tokens=EngineSettings().max_row_tokens,
            )
        )
    batch.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            with record_function(STEP_SPAN):
                batch.step()
    return sum_parts(profiler.events(), adapter_steps=steps * len(cases))


def sum_parts(events: Iterable[Any], *, adapter_steps: int) -> dict[str, float]:
    """Seconds of the events' own time by part, over `adapter_steps`."""
    seconds: dict[str, float] = {}
    for event in events:
        part = _part_of(event)
        seconds[part] = seconds.get(part, 0.0) + event.self_cpu_time_total / 1e6 / adapter_steps
    return seconds


def _part_of(event: Any) -> str:
    names = [event.name]
    while (event := event.cpu_parent) is not None:
        names.append(event.name)
    found = next((part for mark, part in SPANS if any(mark in name for name in names)), REST)
    return FROZEN if found != HEAD and names[0] in PRODUCTS else found
