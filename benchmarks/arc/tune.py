"""Which settings solve which tasks: the embedded model trained on each task, and asked.

    python -m benchmarks.arc.tune --out tried.jsonl [--tasks 12] [--rates 0.001,0.004] ...

One line of JSON for each task and edit: the settings, how many of its tests are right, cells, loss,
engine seconds. The first line of a task is the model without training. What stands in the file
already is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seal.dataset_rows import Place
from seal.datasets import read_values
from seal.domains.arc.edits import DataGeneration, Training, TrainSettings, written_edit
from seal.domains.arc.grading import measure
from seal.domains.arc.grids import grid_of, grid_text
from seal.domains.arc.layouts import Layout, grid_in, layout_of
from seal.domains.arc.prompts import ANSWER_STOP, answer_text, question_text
from seal.domains.arc.tasks import demonstrations_of, read_tasks
from seal.domains.arc.training_sets import training_rows
from seal.domains.base import Context
from seal.engine import (
    Adapter,
    Engine,
    EngineTask,
    EvaluationRequest,
    EvaluationResult,
    TrainingRequest,
    TrainingResult,
)
from seal.models import resolve_model
from seal.restem.seeds import derive_seed
from seal.settings import EngineSettings, LoraSettings, OptimizerSettings
from seal.settings.training import ALL_PROJECTIONS

SWITCHES = ("basic", "size", "chain", "repeat")


@dataclass(frozen=True)
class Tried:
    """What all edits of one table share."""

    layout: Layout
    rank: int
    alpha: float
    batch_size: int
    max_rows: int
    seed: int


def edits(
    rates: Sequence[float], epochs: Sequence[int], sets: Sequence[str], strategies: Sequence[str]
) -> Iterator[TrainSettings]:
    """The grid of edits. A set names its augmentations: `basic+size`, or `none`."""
    for chosen, strategy, rate, passes in itertools.product(sets, strategies, rates, epochs):
        switches = {f"use_{name}_augmentations": name in chosen.split("+") for name in SWITCHES}
        yield TrainSettings(
            data_generation=DataGeneration.model_validate(switches),
            training=Training.model_validate(
                {
                    "strategy": f"train_using_{strategy}_tokens",
                    "learning_rate": rate,
                    "num_train_epochs": passes,
                }
            ),
        )


def ask(
    engine: Engine, tried: Tried, context: Context, adapter: Adapter | None
) -> EngineTask[EvaluationResult]:
    """All tests of a task."""
    shown = demonstrations_of(context.text)
    asked = [grid_of(query.question) for query in context.queries]
    golds = [grid_of(query.answers[0]) for query in context.queries]
    return engine.evaluate(
        EvaluationRequest(
            run="tune",
            policy=None,
            adapter=adapter,
            prompts=tuple(question_text(shown, grid, tried.layout) for grid in asked if grid),
            golds=tuple(answer_text(gold, tried.layout) for gold in golds if gold),
            max_tokens=32,
            stop=ANSWER_STOP,
        )
    )


def scores(tried: Tried, context: Context, result: EvaluationResult) -> dict[str, float]:
    """Means over the tests of a task."""
    measured = []
    for answer, query in zip(result.answers, context.queries, strict=True):
        grid = grid_in(answer, tried.layout)
        measured.append(measure(grid_text(grid) if grid else "", query.answers))
    return {
        name: sum(each[name] for each in measured) / len(measured)
        for name in ("grid", "shape", "cells")
    } | {"logprob": sum(result.logprobs) / len(result.logprobs)}


def train(
    engine: Engine, tried: Tried, context: Context, edit: TrainSettings
) -> EngineTask[TrainingResult] | None:
    """The training of one inner loop; None where the edit makes no row."""
    rows = training_rows(
        demonstrations_of(context.text),
        edit,
        tried.layout,
        seed=derive_seed(tried.seed, context.title, "rows"),
        max_rows=tried.max_rows,
        max_characters=4000,
    )
    if not rows:
        return None
    return engine.train(
        TrainingRequest(
            run="tune",
            policy=None,
            examples=tuple((row.prompt, row.completion) for row in rows),
            lora=LoraSettings(rank=tried.rank, alpha=tried.alpha, target_modules=ALL_PROJECTIONS),
            optimizer=OptimizerSettings(
                learning_rate=edit.training.learning_rate,
                epochs=edit.training.num_train_epochs,
                batch_size=tried.batch_size,
                schedule="cosine",
            ),
            init_seed=derive_seed(tried.seed, context.title, "init"),
            order_seed=derive_seed(tried.seed, context.title, "order"),
        )
    )


def try_edit(
    engine: Engine, tried: Tried, contexts: Sequence[Context], edit: TrainSettings | None
) -> Iterator[dict[str, object]]:
    """What an edit comes to on each task, None being no training; the engine batches the tasks."""
    trained: list[TrainingResult | None] = [None] * len(contexts)
    if edit:
        tasks = [train(engine, tried, context, edit) for context in contexts]
        trained = [task.future.result() if task else None for task in tasks]
    adapters = [result.adapter if result else None for result in trained]
    asked = [
        ask(engine, tried, context, adapter) if adapter or not edit else None
        for context, adapter in zip(contexts, adapters, strict=True)
    ]
    for context, result, answers in zip(contexts, trained, asked, strict=True):
        line: dict[str, object] = {"task": context.title}
        if result:
            line |= {
                "steps": result.steps,
                "loss": result.final_loss,
                "tokens": result.tokens,
                "engine_seconds": result.engine_seconds,
            }
        yield line | (scores(tried, context, answers.future.result()) if answers else {})


def main() -> None:
    """Fill the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", type=Path, default=Path("seal/corpus/arc-train.jsonl"))
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--rates", default="0.001,0.004")
    parser.add_argument("--epochs", default="2,6")
    parser.add_argument("--sets", default="none,basic")
    parser.add_argument("--strategies", default="output")
    parser.add_argument("--layout", default="digits")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tried = Tried(
        layout_of(given.layout), given.rank, given.alpha, given.batch, given.rows, given.seed
    )
    source = str(given.source)
    values = read_values(Place(source), given.source.read_text(encoding="utf-8"))
    contexts = read_tasks(values, source=source).contexts[:: given.every]
    contexts = contexts[: given.tasks] if given.tasks else contexts
    grid = list(
        edits(
            [float(rate) for rate in given.rates.split(",")],
            [int(epochs) for epochs in given.epochs.split(",")],
            given.sets.split(","),
            given.strategies.split(","),
        )
    )
    model = resolve_model("smollm2-135m")
    engine = Engine.load(
        model.path, name="smollm2-135m", settings=EngineSettings(slots=16), base=model.base
    )
    shared = {
        "layout": given.layout,
        "rank": given.rank,
        "alpha": given.alpha,
        "batch": given.batch,
        "max_rows": given.rows,
        "seed": given.seed,
    }
    done = {
        key_of(json.loads(line))
        for line in (given.out.read_text().splitlines() if given.out.exists() else [])
    }
    with given.out.open("a", encoding="utf-8") as out:
        for edit in [None, *grid]:
            named = {**shared, "edit": written_edit(edit) if edit else ""}
            left = [one for one in contexts if key_of({**named, "task": one.title}) not in done]
            for line in try_edit(engine, tried, left, edit):
                out.write(json.dumps(named | line) + "\n")
            out.flush()
    engine.close()


def key_of(line: dict[str, object]) -> str:
    """What makes two lines the same trial."""
    names = ("layout", "rank", "alpha", "batch", "max_rows", "seed", "task", "edit")
    return json.dumps([line[name] for name in names])


if __name__ == "__main__":
    main()
