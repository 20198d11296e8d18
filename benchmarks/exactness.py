"""P5: how far an adapter that was trained in a batch is from the one that training it alone gives.

Both sides run in float32 on the same edits with the same seeds: one engine takes all adapters at
once through fewer slots than there are adapters (mixed lengths; some join when others leave), the
other has one slot and takes one adapter after another. The figure is the largest relative
difference of any adapter: ||W_batched - W_alone|| / ||W_alone|| (Frobenius) over all its A and B. A
starts random and hardly moves, B starts at 0: the details give B alone, which is the stricter
number.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from benchmarks.common import (
    Setting,
    engine_on,
    load_model,
    make_figure,
    train_all,
    training_request,
)
from benchmarks.figures import Figures
from seal.engine import Adapter, TrainingResult
from seal.errors import Internal

KEYS = ("P5",)


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Train the adapters both ways and compare them one by one."""
    sizes = setting.sizes
    cases = setting.cases.take(sizes.exact_adapters)
    requests = [
        training_request(case, epochs=sizes.exact_epochs, seed=index)
        for index, case in enumerate(cases)
    ]
    model = load_model(setting, torch.float32)
    setting.report("P5 exactness", 0, 1 + len(requests))
    with engine_on(model, slots=sizes.exact_slots) as engine:
        batched = train_all(engine, requests)
    alone: list[TrainingResult] = []
    with engine_on(model, slots=1) as engine:
        for index, request in enumerate(requests):
            setting.report("P5 exactness", 1 + index, 1 + len(requests))
            alone += train_all(engine, [request])
    setting.report("P5 exactness", 1 + len(requests), 1 + len(requests))
    pairs = [
        (_adapter(one.adapter), _adapter(other.adapter))
        for one, other in zip(batched, alone, strict=True)
    ]
    differences = [relative_difference(flat(one), flat(other)) for one, other in pairs]
    of_b = [
        relative_difference(flat(one, only_b=True), flat(other, only_b=True))
        for one, other in pairs
    ]
    largest = [
        float((flat(one) - flat(other)).abs().max() / flat(other).abs().max())
        for one, other in pairs
    ]
    return {
        "P5": make_figure(
            setting,
            "P5",
            differences,
            value=max(differences),
            reading="largest over the adapters; one sample is one adapter",
            details={
                "of B alone": f"{max(of_b):.2g}",
                "largest |difference| / largest |W|": f"{max(largest):.2g}",
                "optimiser steps": f"{min(result.steps for result in alone)} to "
                f"{max(result.steps for result in alone)} per adapter",
            },
            sizes=("exact_adapters", "exact_slots", "exact_epochs"),
        )
    }


def flat(adapter: Adapter, *, only_b: bool = False) -> torch.Tensor:
    """All values of A and B, layer by layer, in float64."""
    pairs = (adapter.pairs[name] for name in sorted(adapter.pairs))
    return torch.cat(
        [
            tensor.double().flatten()
            for pair in pairs
            for tensor in ((pair.b,) if only_b else (pair.a, pair.b))
        ]
    )


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """||one - other|| / ||other||."""
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


def _adapter(adapter: Adapter | None) -> Adapter:
    if adapter is None:
        raise Internal("a training that ended well left no adapter")
    return adapter
