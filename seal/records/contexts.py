"""All that a stage learnt about one context."""

from __future__ import annotations

from seal.part_prompts import PartPrompts
from seal.records.base import Record
from seal.records.edits import EditRecord
from seal.records.loops import EvaluationRecord, InnerLoopRecord
from seal.records.stages import Stage


class ContextRecord(Record):
    """All that a rollout or a validation learnt about one context."""

    context_id: str
    title: str
    parts: PartPrompts
    """How each part of the edits was asked for; empty if the context has no edits."""
    baseline: EvaluationRecord
    """The student of the inner loops without an adapter; in the validation of round 0 the base
    model. One that an earlier stage measured has no tokens and no engine seconds here."""
    edits: tuple[EditRecord, ...]
    inner_loops: tuple[InnerLoopRecord, ...]
    engine_seconds_generate: float


class BaselineRecord(Record):
    """The baseline of a context where it is the same in every round: measured once for the run."""

    round: int
    """Round ..."""
    stage: Stage
    """... and stage that measured it, which its cost counts for."""
    evaluation: EvaluationRecord
