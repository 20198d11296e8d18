"""The two trainings of an adaptation, as pure functions of what is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from controller_svc.worker.bounds import steps_of, with_steps
from seal.adaptations.lesson import Lesson, LessonRow
from seal.outcomes import Outcome
from seal.records import Stage, TrainingRecord
from seal.restem.seeds import derive_seed
from seal.rpc.convert import lora_message, optimizer_message, policy_message
from seal.runs.rows import training_row
from seal.settings import AdaptationSpec, OptimizerSettings
from seal.v1 import trainer_pb2

Trained = Literal["passages", "adapter"]
"""The two adapters."""
CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints of a training, from which an interrupted one goes on."""


def training_of(
    model: Trained, lesson: Lesson, optimizer: OptimizerSettings
) -> tuple[tuple[LessonRow, ...], OptimizerSettings]:
    """What an adapter learns, and how.

    The passages alone are learnt with the same replayed rows, which also teach how to answer, and
    in as many optimiser steps as everything: what is compared is what the edits add.
    """
    if model == "adapter":
        return lesson.rows, optimizer
    rows = tuple(row for row in lesson.rows if row.kind != "edit")
    if not rows:
        return (), optimizer
    return with_steps(rows, optimizer, steps=steps_of(optimizer, len(lesson.rows)))


def adapter_request(
    model: Trained,
    rows: Sequence[LessonRow],
    optimizer: OptimizerSettings,
    *,
    run: str,
    spec: AdaptationSpec,
    base_sha256: str,
) -> trainer_pb2.TrainAdapterRequest:
    """The training of one adapter on the base model; both share their seeds."""
    return trainer_pb2.TrainAdapterRequest(
        request_id=f"{run}/{Stage.ADAPT}/{model}",
        run=run,
        policy=policy_message(spec.model, None, base_sha256=base_sha256),
        examples=[training_row(row) for row in rows],
        lora=lora_message(spec.adapter.lora),
        optimizer=optimizer_message(optimizer),
        init_seed=derive_seed(spec.seed, "init", "adapt"),
        order_seed=derive_seed(spec.seed, "order", "adapt"),
        export_mode=trainer_pb2.EXPORT_MODE_ADAPTER,
        checkpoint_every_seconds=CHECKPOINT_SECONDS,
        rows_note=rows_note(rows),
    )


def rows_note(rows: Sequence[LessonRow]) -> str:
    """What the card of an adapter says that it was trained on."""
    kinds = {row.kind for row in rows}
    parts = ["the text of passages"]
    if "edit" in kinds:
        parts.append("text that a language model wrote on them")
    if "replay" in kinds:
        parts.append("gold question-answer pairs of other passages")
    return ", ".join(parts)


def untrained(outcome: Outcome) -> TrainingRecord:
    """A training that could not begin."""
    return TrainingRecord(
        outcome=outcome,
        adapter=None,
        steps=0,
        final_loss=0.0,
        tokens=0,
        seconds=0.0,
        engine_seconds=0.0,
    )
