"""Part (a): on this device the engine computes what it computes on a CPU, on a tiny model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cuda.bench import Bench
from benchmarks.cuda.models import inner_loop, questions, random_transformer
from benchmarks.cuda.plan import TINY_SHAPE
from benchmarks.cuda.report import Line
from benchmarks.random_model import byte_tokenizer
from seal.engine import (
    Adapter,
    Checkpoints,
    Engine,
    GenerationRequest,
    SlotCheckpoint,
    TrainingRequest,
)
from seal.engine.job import make_job
from seal.engine.kernels import PackedKernels, PaddedKernels
from seal.engine.model import FrozenModel
from seal.engine.training import TrainingBatch
from seal.settings import EngineSettings, LoraSettings

LORA = LoraSettings(rank=8, alpha=16, target_modules=("q_proj", "v_proj", "down_proj"))
ROWS = ((12, 30, 7), (25, 9), (5, 41, 18, 6))
PACKED_TOLERANCE, ALONE_TOLERANCE, LOGPROB_TOLERANCE = 3e-2, 1e-4, 1e-4
"""Relative difference of gradients in bfloat16, of trained weights and of log p in float32."""
WAITS_PER_STEP = 1


def check(bench: Bench) -> Iterator[Line]:
    """Every check is a line, passed or not."""
    device = bench.plan.device
    reference = random_transformer(TINY_SHAPE, device="cpu", dtype=torch.float32)
    model = FrozenModel(copy.deepcopy(reference).to(device), byte_tokenizer(), name="a tiny model")
    if bench.on_cuda:
        yield from _packed(reference, device)
    requests = [inner_loop(rows, seed=seed, lora=LORA, epochs=3) for seed, rows in enumerate(ROWS)]
    together, alone = _train(model, requests), [_train(model, [one])[0] for one in requests]
    worst = max(_difference(*pair) for pair in zip(together, alone, strict=True))
    yield Line(
        name="adapters trained together differ from those trained alone by",
        value=worst,
        arithmetic=f"at most {ALONE_TOLERANCE:g}, float32",
        passed=worst <= ALONE_TOLERANCE,
    )
    bench.check_time("generation, evaluation and checkpoints", seconds=5)
    settings = EngineSettings(slots=2, dtype="float32", device=device, threads=1)
    engine = Engine(model, settings)
    try:
        yield from _generation(engine)
        yield _evaluation(engine, model, reference)
        yield _checkpoint(engine, requests[2])
    finally:
        engine.close()
    if bench.on_cuda:
        yield _waits(reference, device)


def _packed(reference: torch.nn.Module, device: str) -> Iterator[Line]:
    """First moments after a step are the clipped gradients: the two layouts' are compared."""
    moments: list[list[torch.Tensor]] = []
    losses: list[list[float]] = []
    for kernels in (PackedKernels(), PaddedKernels()):
        model = _bfloat16(reference, device)
        chosen = type(model.kernels)
        model.kernels = kernels
        batch = _batch(model, [inner_loop(rows, seed=1, lora=LORA, epochs=2) for rows in ROWS])
        batch.advance()
        moments.append([batch.state(slot).first_P.clone() for slot in batch.jobs])
        losses.append([job.losses[0] for job in batch.jobs.values()])
    yield Line(
        name="packed kernels are chosen",
        value=float(chosen is PackedKernels),
        arithmetic="bfloat16 from compute capability 8.0 on",
        passed=chosen is PackedKernels,
    )
    for name, pairs in (
        ("gradients", [(a, b) for a, b in zip(*moments, strict=True)]),
        ("losses", [(torch.tensor(a), torch.tensor(b)) for a, b in zip(*losses, strict=True)]),
    ):
        worst = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        yield Line(
            name=f"{name} of the packed and the padded path differ by",
            value=worst,
            arithmetic=f"at most {PACKED_TOLERANCE:g}, bfloat16",
            passed=worst <= PACKED_TOLERANCE,
        )


def _waits(reference: torch.nn.Module, device: str) -> Line:
    """How often a step lets the host wait, as torch itself counts it."""
    model = _bfloat16(reference, device)
    batch = _batch(model, [inner_loop(rows, seed=1, lora=LORA, epochs=3) for rows in ROWS])
    batch.advance()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    ]
    return Line(
        name="waits for the device in a step of three slots",
        value=len(waits),
        arithmetic=f"one, for losses and norms; seen: {', '.join(waits) or 'none'}",
        passed=len(waits) <= WAITS_PER_STEP,
    )


def _generation(engine: Engine) -> Iterator[Line]:
    for temperature, name in ((0.0, "greedy"), (1.0, "sampled")):
        prompts = ("a town", "b", "a longer prompt than these")
        request = GenerationRequest(
            run="benchmark",
            policy=None,
            prompts=prompts,
            seeds=((1, 2), (3,), (4, 5)),
            temperature=temperature,
            top_p=0.95,
            max_tokens=12,
        )
        alone = [
            replace(request, prompts=(prompt,), seeds=(seeds,))
            for prompt, seeds in zip(prompts, request.seeds, strict=True)
        ]
        together = engine.generate(request).future.result().samples
        apart = [engine.generate(one).future.result().samples[0] for one in alone]
        same = sum(
            a.text == b.text
            for mine, other in zip(together, apart, strict=True)
            for a, b in zip(mine, other, strict=True)
        )
        count = sum(map(len, request.seeds))
        yield Line(
            name=f"{name} texts written together that are those written alone",
            value=same,
            arithmetic=f"{count} of {count}",
            passed=same == count,
        )


def _evaluation(engine: Engine, model: FrozenModel, reference: torch.nn.Module) -> Line:
    """Log p of the gold answers, and transformers' own on a CPU."""
    request = questions(None, count=3, prompt_tokens=17, answer_tokens=4, seed=0)
    got = engine.evaluate(request).future.result().logprobs
    worst = 0.0
    for prompt, gold, logprob in zip(request.prompts, request.golds, got, strict=True):
        before, after = model.text.prompt(prompt), model.text.completion(gold)
        with torch.no_grad():
            logits = reference(input_ids=torch.tensor([[*before, *after]])).logits[0]
        log_p = torch.log_softmax(logits[len(before) - 1 : -1].float(), -1)
        wanted = float(log_p.gather(1, torch.tensor(after)[:, None]).mean())
        worst = max(worst, abs(wanted - logprob))
    return Line(
        name="log p differs from transformers' on a CPU by",
        value=worst,
        arithmetic=f"at most {LOGPROB_TOLERANCE:g} nats, float32",
        passed=worst <= LOGPROB_TOLERANCE,
    )


def _checkpoint(engine: Engine, request: TrainingRequest) -> Line:
    kept: list[bytes] = []
    first = Checkpoints(every_seconds=1e-9, on_checkpoint=lambda one: kept.append(one.to_bytes()))
    whole = engine.train(request, checkpoints=first).future.result().adapter
    again = Checkpoints(
        every_seconds=1e9,
        on_checkpoint=lambda one: None,
        resume=SlotCheckpoint.from_bytes(kept[len(kept) // 2]),
    )
    resumed = engine.train(request, checkpoints=again).future.result().adapter
    if whole is None or resumed is None:
        raise RuntimeError("a training of the checkpoint check did not end well")
    difference = _difference(whole, resumed)
    return Line(
        name="a resumed training differs from an uninterrupted one by",
        value=difference,
        arithmetic="0: bit for bit",
        passed=difference == 0,
    )


def _bfloat16(reference: torch.nn.Module, device: str) -> FrozenModel:
    moved = copy.deepcopy(reference).to(device, torch.bfloat16)
    return FrozenModel(moved, byte_tokenizer(), name="a tiny model")


def _batch(model: FrozenModel, requests: Sequence[TrainingRequest]) -> TrainingBatch:
    batch = TrainingBatch(
        model,
        slots=len(requests),
        rank=LORA.rank,
        targets=LORA.target_modules,
        policy=None,
        max_pass_tokens=2048,
    )
    for request in requests:
        batch.admit(make_job(model, request, max_row_tokens=2048))
    return batch


def _train(model: FrozenModel, requests: Sequence[TrainingRequest]) -> list[Adapter]:
    """Adapters in the requests' order."""
    batch, trained = _batch(model, requests), dict[int, Adapter]()
    while batch.jobs:
        for job, result in batch.step():
            if result.adapter is not None:
                trained[job.request.init_seed] = result.adapter
    return [trained[request.init_seed] for request in requests]


def _difference(one: Adapter, other: Adapter) -> float:
    """Largest difference of a weight over the largest weight."""
    a, b = (
        torch.cat(
            [
                factor.flatten().float()
                for pair in each.pairs.values()
                for factor in (pair.a, pair.b)
            ]
        )
        for each in (one, other)
    )
    return float((a - b).abs().max() / b.abs().max())
