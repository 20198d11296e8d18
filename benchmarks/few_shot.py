"""few-shot: inner loops of the few-shot domain at once against one after another.

An inner loop is that of profile `arc`: an edit of the domain makes a training set of a task's
demonstrations and says with which rate and for how many epochs it is trained on; the adapter is
then asked the task's tests. The tasks are the first of the embedded training corpus, the edits
those that the domain shows the policy, in turn, so that rates, epochs, losses and lengths differ
within a batch. Both sides do the same loops on engines whose model is loaded beforehand: *at once*
as many as there are, each in a slot of its own, *one after another* with one slot. The time is that
of the whole list, its thin end included.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.common import (
    Setting,
    Timing,
    engine_on,
    interleave,
    load_model,
    make_figure,
    ratios,
)
from benchmarks.figures import Figures, Side
from seal.config import load_run
from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.arc.edits import written_edit
from seal.domains.arc.prompts import WORKED
from seal.domains.base import Context
from seal.engine import Adapter, Engine, EvaluationRequest, TrainingRequest
from seal.engine.model import FrozenModel
from seal.errors import Internal, InvalidInput
from seal.restem.seeds import derive_seed
from seal.settings import RunSpec

KEYS = ("few-shot",)
ONE, ALL = "one after another", "at once"


@dataclass(frozen=True)
class InnerLoop:
    """One task with one edit: what is trained, and what is asked then."""

    training: TrainingRequest
    context: Context


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Both sides in turn."""
    sizes, spec = setting.sizes, load_run(None, {"profile": "arc"}).spec
    loops = inner_loops(spec, count=sizes.few_shot_loops, rows=sizes.few_shot_rows)
    model = load_model(setting)
    run(model, spec, loops[:1], at_once=1)  # first calls compile kernels and allocate
    timings = interleave(
        {
            ONE: lambda number: run(model, spec, loops, at_once=1),
            ALL: lambda number: run(model, spec, loops, at_once=len(loops)),
        },
        rounds=sizes.few_shot_samples,
        report=lambda done, total: setting.report("few-shot inner loops", done, total),
    )
    epochs = [loop.training.optimizer.epochs for loop in loops]
    rows = [len(loop.training.examples) for loop in loops]
    figure = make_figure(
        setting,
        "few-shot",
        ratios(timings[ONE], timings[ALL]),
        sides=tuple(
            Side(name=name, unit="s per inner loop", samples=tuple(each.each for each in side))
            for name, side in timings.items()
        ),
        details={
            "tasks": f"the first {len(loops)} of {spec.data.train}",
            "rows of a training set": f"{min(rows)} to {max(rows)}",
            "epochs": f"{min(epochs)} to {max(epochs)}, as the edits say",
            "trained tokens of a list": f"{timings[ALL][0].tokens:,}",
        },
        sizes=("few_shot_samples", "few_shot_loops", "few_shot_rows"),
    )
    return {"few-shot": figure}


def inner_loops(spec: RunSpec, *, count: int, rows: int) -> tuple[InnerLoop, ...]:
    """The first tasks, each with the next edit. Raises InvalidInput where there are too few."""
    domain = get_domain("arc")
    contexts = load_contexts(spec.data.train, domain=domain)
    if count > len(contexts):
        raise InvalidInput(
            f"there are {len(contexts)} tasks",
            field="size.few_shot_loops",
            remedy=f"give {len(contexts)} or less",
        )
    settings = spec.inner.examples.model_copy(update={"max_examples": rows})
    found = []
    for number, context in enumerate(contexts[:count]):
        texts = (written_edit(WORKED[number % len(WORKED)][1]),)
        parts = domain.parse_parts(
            texts,
            context=context,
            family=spec.edit.family,
            settings=settings,
            question_format=spec.evaluation.question_format,
            seed=derive_seed(context.context_id, "rows"),
        )
        training = TrainingRequest(
            run="benchmark",
            policy=None,
            examples=tuple((part.example.prompt, part.example.completion) for part in parts),
            lora=spec.inner.lora,
            optimizer=domain.optimizer(texts, spec.inner.optimizer),
            init_seed=derive_seed(context.context_id, "init"),
            order_seed=derive_seed(context.context_id, "order"),
        )
        found.append(InnerLoop(training, context))
    return tuple(found)


def run(model: FrozenModel, spec: RunSpec, loops: Sequence[InnerLoop], *, at_once: int) -> Timing:
    """The seconds of all loops, so many at once."""
    with engine_on(model, slots=at_once) as engine, ThreadPoolExecutor(at_once) as pool:
        started = time.perf_counter()
        tokens = sum(pool.map(lambda loop: _one(engine, spec, loop), loops))
        return Timing(time.perf_counter() - started, len(loops), tokens)


def _one(engine: Engine, spec: RunSpec, loop: InnerLoop) -> int:
    """Train an adapter and ask it; the tokens that were trained. Raises Internal."""
    trained = engine.train(loop.training).future.result()
    if trained.adapter is None:
        raise Internal(f"a training ended as {trained.outcome}", remedy="use a lower learning rate")
    engine.evaluate(_questions(spec, loop.context, trained.adapter)).future.result()
    return trained.tokens


def _questions(spec: RunSpec, context: Context, adapter: Adapter) -> EvaluationRequest:
    """All tests of a task."""
    domain, format = get_domain("arc"), spec.evaluation.question_format
    prompts = tuple(domain.question_prompt(query, format) for query in context.queries)
    return EvaluationRequest(
        run="benchmark",
        policy=None,
        adapter=adapter,
        prompts=prompts,
        golds=tuple(domain.answer_completion(one.answers[0], format) for one in context.queries),
        max_tokens=spec.evaluation.max_tokens,
        stop=tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
    )
