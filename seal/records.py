"""What a run leaves in the artifact store, as pydantic models.

One record per context, edit, inner loop and answer.
Workers write them, selection and report read them. A score that is missing is `None`, never 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord, PartPrompts
from seal.prompts import Message


class Record(BaseModel):
    """Base of every record: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AdapterReference(Record):
    """One adapter in the artifact store."""

    path: str
    """Its directory, relative to the store's root: the same volume may be mounted elsewhere."""
    sha256: str
    """Digest of its manifest, lower-case hex."""


class AnswerRecord(Record):
    """One graded answer."""

    query_id: str
    question: str
    golds: tuple[str, ...]
    """Acceptable answers; the one that fits best counts."""
    answer: str
    outcome: Outcome
    score: float | None
    """Score by the run's grader; None unless the outcome is ok."""
    exact: float
    contains: float
    f1: float
    logprob: float
    """Mean log p of the first gold answer, nats per token."""


class EvaluationRecord(Record):
    """One Evaluate call."""

    outcome: Outcome
    reward: float | None
    """Mean score over the graded answers."""
    answers: tuple[AnswerRecord, ...]
    ungraded: int
    max_logit_difference: float
    tokens: int
    engine_seconds: float


class TrainingRecord(Record):
    """One TrainAdapter call."""

    outcome: Outcome
    adapter: AdapterReference | None
    steps: int
    final_loss: float
    """Mean loss over the last epoch, nats per target token."""
    tokens: int
    seconds: float
    engine_seconds: float


class ExampleRecord(Record):
    """One training example."""

    prompt: str
    completion: str
    part: int = 0
    """Index of the edit's part that it was parsed from."""
    question: str = ""
    """Of a question-answer pair, in one line; empty for a statement."""
    answer: str = ""
    """Of a question-answer pair; empty for a statement."""


InnerLoopKind = Literal["edit", "passage", "passage-equal-steps", "gold", "open-book"]
"""What the adapter was trained on: a self-edit (with the passage), the passage alone, the passage
with as many optimiser steps as the context's first edit has, or the gold question-answer pairs. For
`open-book` nothing is trained: the passage stands before the questions."""


class InnerLoopRecord(Record):
    """One adapter, trained and evaluated."""

    kind: InnerLoopKind
    context_id: str
    candidate: int
    """Index of the edit among the context's k; 0 for the bounds."""
    repeat: int
    outcome: Outcome
    training: TrainingRecord | None
    """None if there was nothing to train on, or nothing is trained."""
    evaluation: EvaluationRecord | None
    retained: EvaluationRecord | None
    """Open-book questions on other passages, asked of the adapted model (validation only)."""


class PartRecord(Record):
    """What the policy wrote for one part of an edit."""

    text: str
    """Without the start of its prompt."""
    tokens: int
    """Sampled tokens."""
    truncated: bool
    """True if the bound of new tokens cut it off."""
    logprob: float | None = None
    """Mean log p of the sampled tokens at temperature 1, nats; None without one."""


class EditRecord(Record):
    """One self-edit as the policy wrote it and as the domain parsed it."""

    context_id: str
    candidate: int
    seed: int
    parts: tuple[PartRecord, ...]
    """One per part prompt of its context; empty if the context has no edits."""
    examples: tuple[ExampleRecord, ...]
    """Parsed from the edit, without the passage; empty means outcome `invalid`."""

    @property
    def tokens(self) -> int:
        """Sampled tokens of all parts."""
        return sum(part.tokens for part in self.parts)

    @property
    def truncated(self) -> bool:
        """True if most parts were cut off: the only one, or more than half."""
        return 2 * sum(part.truncated for part in self.parts) > len(self.parts)


def part_texts(prompts: Sequence[PartPromptRecord], edit: EditRecord) -> tuple[str, ...]:
    """The whole text of each part: the start that was written for the model, and its own words.

    None for an edit that was not written.
    """
    if not edit.parts:
        return ()
    return tuple(prompt.start + part.text for prompt, part in zip(prompts, edit.parts, strict=True))


def edit_text(prompts: Sequence[PartPromptRecord], edit: EditRecord) -> str:
    """The text of an edit: its parts, each on a line of its own."""
    return "\n".join(part_texts(prompts, edit))


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


class ContextEditsRecord(Record):
    """The k edits of one context, committed as soon as they are written.

    A restart trains the same edits.
    """

    context_id: str
    parts: PartPrompts
    """How each part was asked for, as in `ContextRecord`."""
    edits: tuple[EditRecord, ...]
    engine_seconds: float
    """This context's share of the engine's time."""
    outcome: Outcome = Outcome.OK
    """Why the context has no edits, if it has none: its k edits are empty then and not at fault."""


class Stage(StrEnum):
    """The kinds of work of a run."""

    PREPARE = "prepare"
    """Before the first round: the data are read, checked against the model, and pinned."""
    ROLLOUT = "rollout"
    """E-step: k edits per training context, an inner loop on each."""
    IMPROVE = "improve"
    """M-step: the policy learns the kept edits."""
    VALIDATE = "validate"
    """The policy is measured on held-out contexts."""


class BaselineRecord(Record):
    """The baseline of a context where it is the same in every round: measured once for the run."""

    round: int
    """Round ..."""
    stage: Stage
    """... and stage that measured it, which its cost counts for."""
    evaluation: EvaluationRecord


class ScoreSum(Record):
    """A mean in the making: sums add up, and a missing score is not counted."""

    n: int
    """Scores in the sum."""
    total: float
    """Their sum."""

    @property
    def mean(self) -> float | None:
        """The mean; None if there is no score."""
        return self.total / self.n if self.n else None


class ShardSummary(Record):
    """The small result of one finished task; it fits a Job's termination message (< 4 KiB)."""

    name: str
    stage: Stage
    round: int
    shard: int
    attempt: int
    seconds: float
    """Wall time of the task over all its attempts that did work."""
    inner_loops_run: int
    """Inner loops finished by this task."""
    inner_loops_resumed: int
    """Inner loops found finished by an earlier attempt and not run again."""
    outcomes: dict[str, int]
    """Inner loops by outcome, without `open-book`, which is none; an `improve` has one, its
    training (none if nothing was kept)."""
    tokens: dict[str, int]
    """Tokens by kind: generate, train, evaluate."""
    engine_seconds: dict[str, float]
    """Engine seconds by kind: generate, train, evaluate, improve."""
    stored_bytes: dict[str, int] = {}
    """Bytes in the artifact store by kind: `records`, `adapters` (of the inner loops: deleted after
    this summary unless the settings keep them), `policy`."""
    scores: dict[str, ScoreSum] = {}
    """Means over contexts: `baseline` (the student alone), `edit` (mean of a context's candidates),
    `best` (its best candidate), and of the bounds `passage`, `passage-equal-steps`, `gold`,
    `open-book`; and means over answers to retained questions: `retained` (edit-adapted models),
    `retained_policy` (the policy alone), and after a warm start `retained_base`."""
    policy: AdapterReference | None = None
    """`improve` only: the new policy; None if nothing was kept, and the old policy stays."""
    kept: int = 0
    """`improve` only: edits kept by the selection, whole or in part."""
    kept_parts: int = 0
    """`improve` only: parts of these that are learnt; of a warm start, gold rows."""
    label: str = ""
    """`improve` only: the label of what it learnt; of a warm start, if it made a policy."""
    result_sha256: str = ""
    """Digest of the records file that belongs to this summary."""


class ModelDescription(Record):
    """The base model that a trainer has loaded, and what it can take."""

    base_model: str
    """Its name there."""
    base_sha256: str
    """Digest of its weights, lower-case hex; empty if the trainer was not told."""
    max_positions: int
    """Positions that it has; 0 if it does not say."""
    max_row_tokens: int
    """Longest training row, tokens."""
    max_rank: int
    """Largest LoRA rank."""
    target_modules: tuple[str, ...]
    """Names of the layers that can have an adapter."""
    dtype: str
    """Compute type."""
    max_message_bytes: int = 0
    """Largest request that it takes, bytes; 0 if it does not say."""
    lora_refusals: tuple[str, ...] = ()
    """For each shape that was asked about, why memory has no room for it; empty if it has."""


class LongRow(Record):
    """One context that the model cannot take: its work has outcome `too_long`."""

    data: str
    """Which contexts: train, validation, retained."""
    number: int
    """Its place among them, from 1."""
    title: str
    what: str
    """What of it is too long."""
    tokens: int
    limit: int


class PreparedRecord(Record):
    """What a run is pinned to once its first stage has ended."""

    contexts_sha256: dict[str, str]
    """Digest of each pinned file of contexts: train, validation, retained."""
    contexts: dict[str, int]
    """Contexts of each."""
    model: ModelDescription
    """The base model; a resume on other weights is refused."""
    too_long: tuple[LongRow, ...]
    """Contexts that the model cannot take."""

    @property
    def sha256(self) -> str:
        """Digest of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class LearntRow(Record):
    """One row of the M-step: what the policy learns to write after a prompt."""

    part: int
    """Index of the edit's part."""
    prompt: str
    """With the start of the part; with `messages` how the model's turn starts."""
    messages: tuple[Message, ...] = ()
    """Turns of a chat prompt; empty for a raw one."""
    completion: str
    """What follows the prompt: the part's text."""
    credit: float | None = None
    """What the part itself is held to have gained; None where it was chosen with its edit."""


class AbstainingRow(LearntRow):
    """A row of a part prompt on which the policy should write nothing."""

    context_id: str


class KeptEdit(Record):
    """One edit that the M-step learns, whole or some of its parts."""

    context_id: str
    candidate: int
    rows: tuple[LearntRow, ...]
    """What is learnt of it, at least one row."""
    reward: float
    gain: float
    sha256: str
    """Digest of the context's id and of the rows' prompts and completions."""


CONTROL_WITHOUT_REWARD = "control without reward"
"""Label of a selection, and of its round, that chance made and no reward."""


WARM_START = "warm start, supervised"
"""Label of a round 0 whose policy has learnt gold pairs."""


class GoldRow(Record):
    """One row of the warm start."""

    context_id: str
    """Training context whose gold pair it is."""
    row: LearntRow


class SupervisedRecord(Record):
    """What the warm start learnt: gold pairs of training contexts, which no reward chose."""

    label: str = WARM_START
    """What must be said wherever the round is shown."""
    rows: tuple[GoldRow, ...]
    dropped: dict[str, int]
    """Rows left out, by reason."""
    sha256: str
    """Digest over what is learnt, in order."""


class SelectionRecord(Record):
    """What a round kept and why the rest was dropped."""

    round: int
    label: str = ""
    """What must be said wherever the round is shown (`CONTROL_WITHOUT_REWARD`); else empty."""
    kept: tuple[KeptEdit, ...]
    abstaining: tuple[AbstainingRow, ...] = ()
    """Learnt beside the kept edits."""
    dropped: dict[str, int]
    """Candidates of which nothing is kept by reason (`seal.restem.select.DropReason`)."""
    dropped_parts: dict[str, int] = {}
    """Where parts are chosen: those not kept by reason (`seal.restem.select.PartDropReason`)."""
    sha256: str
    """Digest over the kept edits' digests and those of the abstaining rows, in order."""

    @property
    def rows(self) -> tuple[LearntRow, ...]:
        """All that the M-step learns."""
        return (*(row for edit in self.kept for row in edit.rows), *self.abstaining)
