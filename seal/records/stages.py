"""The stages of a run, and the small numbers that a finished task reports."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from seal.records.adaptation import AdaptationCounts, AdaptationResult
from seal.records.base import AdapterReference, Record


class Stage(StrEnum):
    """The kinds of work of a run and of an adaptation."""

    PREPARE = "prepare"
    """Before the first round: the data are read, checked against the model, and pinned."""
    ROLLOUT = "rollout"
    """E-step: k edits per training context, an inner loop on each."""
    IMPROVE = "improve"
    """M-step: the policy learns the kept edits."""
    VALIDATE = "validate"
    """The policy is measured on held-out contexts."""
    QUESTION = "question"
    """Of an adaptation without questions: the base model writes some, and keeps what it knows only
    with the passage before it."""
    ADAPT = "adapt"
    """Of an adaptation: one adapter over all passages is trained, measured and judged."""


class ScoreSum(Record):
    """A mean in the making: sums add up, and a missing score is not counted."""

    n: int
    """Scores in the sum."""
    total: float
    """Their sum."""
    squares: float | None = None
    """Sum of their squares; None if nobody has added them up."""

    @property
    def mean(self) -> float | None:
        """The mean; None if there is no score."""
        return self.total / self.n if self.n else None


class ShardSummary(Record):
    """The small result of one finished task.

    It fits a Job's termination message (< 4 KiB), that of `adapt` without its result.
    """

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
    stored_bytes: dict[str, int] = Field(default={})
    """Bytes in the artifact store by kind: `records`, `adapters` (of the inner loops: deleted after
    this summary unless the settings keep them), `policy`."""
    scores: dict[str, ScoreSum] = Field(default={})
    """Means over contexts: `baseline` (the student alone), `edit` (mean of a context's candidates),
    `best` (its best candidate), and of the bounds `passage`, `passage-equal-steps`, `gold`,
    `open-book`, `fixed-edit`, `oracle-edit`; and means over answers to retained questions:
    `retained` (edit-adapted models), `retained_policy` (the policy alone), and after a warm
    start `retained_base`."""
    measures: dict[str, ScoreSum] = Field(default={})
    """What is watched of edits and answers: `gain` (mean of a context's candidates over its
    baseline), `edit_tokens`, `distinct_1` and `distinct_2` (different words, and pairs of
    neighbouring words, among all in a context's edits), `duplicate` (edits that repeat an earlier
    one of their context), `ungraded` (answers without a grade)."""
    dropped: dict[str, int] = Field(default={})
    """`improve` only: edits of which nothing is learnt, by reason."""
    device: str = ""
    """`prepare` only: type of the device that the trainer's engine computes on; empty if it does
    not say."""
    policy: AdapterReference | None = None
    """`improve` only: the new policy; None if nothing was kept, and the old policy stays."""
    kept: int = 0
    """`improve` only: edits kept by the selection, whole or in part."""
    kept_parts: int = 0
    """`improve` only: parts of these that are learnt; of a warm start, gold rows."""
    label: str = ""
    """`improve` only: the label of what it learnt; of a warm start, if it made a policy."""
    counts: AdaptationCounts | None = None
    """`prepare` and `question` of an adaptation only: what its documents came to."""
    result: AdaptationResult | None = None
    """`adapt` only."""
    result_sha256: str = ""
    """Digest of the records file that belongs to this summary."""
