"""`report.json`: every number and every text that the HTML report shows, as pydantic models.

Scores are shares of 1 (log p: nats per token). A score is first averaged within a passage (answers,
then repeats, then candidates), so that `n` counts passages and intervals are over passages. What is
missing is None and counted, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from seal.domains import get_domain
from seal.domains.base import DomainWords
from seal.records import CONTROL_WITHOUT_REWARD, Record
from seal.report.numbers.entries import Decision, PassageGroup
from seal.settings import DOMAIN_OPTIONS, LearningSpec, RunSpec

SCHEMA_VERSION = 5
UNKNOWN_PHASE = "Unknown"
"""Of a run whose status lies elsewhere, as a cluster keeps it in the object."""

Metric = str
"""A grade of an answer: a measure of the domain, `logprob`, or `score`, the one that the run takes
as reward."""
RowKind = Literal[
    "base",
    "passage",
    "passage-equal-steps",
    "edit",
    "gold",
    "open-book",
    "fixed-edit",
    "oracle-edit",
]
"""What the evaluated model had learnt: nothing, the passage alone, the passage alone with as many
optimiser steps as the edits, a self-edit and the passage, the gold question-answer pairs; nothing,
but with the passage before the question; or an edit that the settings give."""
PASSAGE_KINDS: tuple[Literal["passage", "passage-equal-steps", "fixed-edit"], ...] = (
    "passage",
    "passage-equal-steps",
    "fixed-edit",
)
"""What is learnt without the policy, the passage alone or a fixed edit: self-edits have to beat the
better of them."""
CEILING_KINDS: tuple[Literal["gold", "open-book", "oracle-edit"], ...] = (
    "gold",
    "open-book",
    "oracle-edit",
)
"""What self-edits are not expected to reach."""


class Estimate(Record):
    """A mean over passages with its 95 % interval."""

    n: int
    """Passages in the mean."""
    mean: float | None
    """None if n is 0."""
    low: float | None = None
    """Lower end of the interval; None where n is too small for one."""
    high: float | None = None
    """Upper end."""


class Verdict(StrEnum):
    """What a paired difference allows to say."""

    BETTER = "better"
    """Its whole interval is above zero."""
    WORSE = "worse"
    """Its whole interval is below zero."""
    UNCLEAR = "cannot be told apart"
    """Its interval holds zero."""
    UNKNOWN = "too few passages"
    """Passages with a question that both have a grade of are too few for any verdict."""


class Difference(Estimate):
    """The mean of a score minus that of a reference, taken passage by passage.

    On each over the questions that both have a grade of.
    """

    verdict: Verdict


class ScoreRow(Record):
    """One line of the result table."""

    key: str
    """`base`, `passage`, `passage-equal-steps`, `edit-0`, `edit-1`, ..., `gold`, `open-book`."""
    label: str
    """With its remark."""
    short: str
    """In few words: `passage alone`, `round 2`."""
    kind: RowKind
    remark: str
    """What must be said of it wherever it is shown, such as "control without reward"; or empty."""
    round: int
    """Round whose validation measured it."""
    metrics: dict[Metric, Estimate]
    over_passage: dict[Metric, Difference]
    """To the passage alone, the better of its rows (`Report.best_passage`); empty for that row
    itself."""
    over_base: dict[Metric, Difference]
    """To the base row; empty for that row itself."""
    over_first: dict[Metric, Difference]
    """Self-edits of a later round: to those of round 0; else empty."""
    over_previous: dict[Metric, Difference]
    """Self-edits of a later round: to those of the round before; else empty."""
    passages_missing: int
    """Validation passages without a single score in this row."""
    outcomes: dict[str, int]
    """Inner loops by outcome; empty for the base row, which has none."""
    answers: int
    """Answers asked for."""
    answers_ungraded: int
    """Of these, without a grade."""

    @property
    def without_reward(self) -> bool:
        """Chance chose what its policy learnt."""
        return self.remark.startswith(CONTROL_WITHOUT_REWARD)


class RetainedRow(Record):
    """Accuracy on open-book questions of other passages, to see what is forgotten."""

    key: str
    label: str
    round: int
    policy_alone: bool
    """True: the policy without an inner adapter, on the whole retained set. False: adapted models,
    each on its window of the set."""
    models: int
    """Models that were asked."""
    answers: int
    """Graded answers."""
    score: Estimate
    """By the run's grader. The policy alone: n counts retained passages; adapted models: n counts
    the passages they were adapted to."""
    accuracy: Estimate
    """Gold answer contained."""
    accuracy_change: Estimate | None
    """Adapted models: paired difference to the model beneath the adapter alone, on the same
    questions."""


class Spread(Record):
    """Five numbers and the mean of a list."""

    n: int
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float
    mean: float


class EditShape(Record):
    """How the edits of one stage look."""

    stage: Literal["rollout", "validate"]
    round: int
    policy_round: int
    """Round of the policy that wrote them."""
    edits: int
    empty: int
    """Edits that parsed to no training example."""
    truncated: int
    """Edits that `max_tokens` cut off, in most of their parts."""
    tokens: Spread | None
    examples: Spread | None
    """Training examples per edit, the passage not counted."""
    pairs: float | None
    """Question-answer pairs among these per edit; None if no edit has any."""
    cover: float | None
    """Share of a passage's gold answers that some pair's answer holds, mean over its edits, then
    over passages: a diagnostic that nothing learns from. None without pairs."""
    unique_share: float | None
    """Different texts among the edits."""
    distinct_pairs_share: float | None
    """Different pairs of neighbouring words among all pairs of all edits (distinct-2). The metrics
    have the same of each context's edits apart."""
    choices: dict[str, dict[str, int]]
    """Where edits choose among few possibilities: how many chose which, by name and value. Edits
    that hold nothing are left out."""
    diversity: float | None
    """Mean distance of two edits of one passage: 1 - shared words / all words. None with one edit
    per passage."""


class Bin(Record):
    """One bar of a histogram: low <= value < high."""

    low: float
    high: float
    kept: int
    dropped: int


class Reliability(Record):
    """How far a candidate's reward repeats itself when it is trained again with other seeds."""

    candidates: int
    """Candidates with a reward."""
    repeats: int
    single: float
    """Share of the spread between a passage's candidates that one training's reward repeats
    (intraclass correlation)."""
    averaged: float
    """Of the mean over the repeats (Spearman-Brown)."""


class CreditedPart(Record):
    """A part of an edit as an example of what helped, or did not."""

    title: str
    """Of its passage."""
    asked_on: str
    """The sentence; empty for an edit of one part."""
    text: str
    credit: float
    """Queries of its passage that are answered for it, about."""
    learnt: bool


class RolloutReport(Record):
    """The E-step of one round and what came of it."""

    round: int
    policy_round: int
    passages: int
    candidates: int
    decisions: dict[Decision, int]
    """Candidates by what the selection did with them."""
    outcomes: dict[str, int]
    """Inner loops by outcome."""
    label: str
    """What must be said wherever the round is shown; empty for most."""
    kept: int
    """Candidates that the M-step learnt, whole or in part."""
    kept_parts: int
    """Rows of these that it learnt."""
    abstaining: int
    """Rows beside them by which the policy learns to write nothing."""
    dropped_parts: dict[str, int]
    """Where parts are chosen: those not kept, by reason."""
    best_parts: tuple[CreditedPart, ...]
    """Those of the highest credit, where parts are chosen."""
    worst_parts: tuple[CreditedPart, ...]
    """Those of the lowest, the lowest first; none that are among the best."""
    trained: bool | None
    """Whether the M-step made a new policy, a better one or a worse; None while it is not over."""
    selection_sha256: str
    baseline: Estimate
    """Reward of the student (`inner.student`) without an inner adapter."""
    reward: Estimate
    """Mean reward of a passage's candidates."""
    best: Estimate
    """Reward of a passage's best candidate; biased upwards, being a maximum."""
    gain: Difference
    """`reward` minus `baseline`, paired."""
    better: int
    """Candidates with gain > 0."""
    equal: int
    """Candidates with gain 0."""
    worse: int
    """Candidates with gain < 0."""
    rewards: tuple[Bin, ...]
    """Candidates by reward."""
    gains: tuple[Bin, ...]
    """Candidates by gain."""
    reliability: Reliability | None
    """None with one repeat, or where it is undefined: no spread, or no passage with two
    candidates."""


class StageReport(Record):
    """Cost of one stage."""

    stage: Literal["rollout", "improve", "validate"]
    round: int
    shards_done: int
    shards: int
    seconds: float
    """Longest wall time of a shard."""
    inner_loops_run: int
    inner_loops_resumed: int
    outcomes: dict[str, int]
    tokens: dict[str, int]
    engine_seconds: dict[str, float]
    kept_bytes: dict[str, int]
    """Bytes that it left in the artifact store, by kind: records, policy, and adapters of its inner
    loops if the run keeps them. What is deleted once a shard has ended is not counted."""


class Machine(Record):
    """Where the run was computed, as the run left it in `machine.json`."""

    system: str
    """Operating system and architecture."""
    processor: str
    cores: int
    memory_gib: float
    device: str
    """torch device of the engine."""
    versions: dict[str, str]
    """seal, python, torch, ..."""
    dtype: str
    """Type that the engine computed in."""
    gemm_teraflops: float | None
    """Measured GEMM peak in that type, TFLOP/s."""


class Report(Record):
    """All that is to say about a run."""

    schema_version: int = SCHEMA_VERSION
    run: str
    phase: str
    """Phase of the run when the report was made."""
    failure: str
    """Why it failed; empty if it did not."""
    rounds_done: int
    """Rounds whose validation is over, round 0 not counted."""
    started_seconds: float | None
    """Unix time."""
    finished_seconds: float | None
    """Unix time."""
    spec: RunSpec
    machine: Machine | None
    interval: str
    """How the intervals were made, in words."""
    headline: str
    """What came out, in a few sentences: what can be told apart, by which measure."""
    findings: tuple[str, ...]
    """The comparisons that the run is about, with their intervals and what these allow to say."""
    validation_passages: int
    validation_questions: int
    rows: tuple[ScoreRow, ...]
    best_passage: str
    """Key of the passage row that the others are compared with: that of the highest F1; empty if
    none was measured."""
    retained: tuple[RetainedRow, ...]
    rollouts: tuple[RolloutReport, ...]
    gold_rows: int
    """Gold pairs that a warm start has learnt; 0 without one."""
    shapes: tuple[EditShape, ...]
    stages: tuple[StageReport, ...]
    notes: tuple[str, ...]
    """What a reader has to know before believing the numbers."""
    validation_details: PassageGroup | None
    """Validation passages with the answers of all rows."""
    rollout_details: tuple[PassageGroup, ...]
    """Training passages with their edits, per round."""

    @property
    def measures(self) -> tuple[Metric, ...]:
        """What is always shown side by side."""
        return measure_names(self.spec)

    @property
    def words(self) -> DomainWords:
        """What the domain calls its contexts and results."""
        return get_domain(self.spec.domain).words

    @property
    def asks_pairs(self) -> bool:
        """Whether edits of the run's domain can hold question-answer pairs."""
        return DOMAIN_OPTIONS[self.spec.domain].learns_text

    def writer(self, policy_round: int) -> str:
        """Who wrote edits, with what must be said of it: `policy of round 1`."""
        row = self.row(f"edit-{policy_round}")
        remark = row.remark if row else ""
        if policy_round == 0 and not remark:
            return "base model"
        return f"policy of round {policy_round}" + (f" ({remark})" if remark else "")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be said of the run where its name is shown, each once."""
        return tuple(dict.fromkeys(row.remark for row in self.rows if row.remark))

    def row(self, key: str) -> ScoreRow | None:
        """The row of that key, if it was measured."""
        return next((row for row in self.rows if row.key == key), None)

    @property
    def last_edit_row(self) -> ScoreRow | None:
        """Self-edits of the latest round that was validated."""
        return last_edits(self.rows)

    @property
    def kept_bytes(self) -> dict[int, dict[str, int]]:
        """Bytes that each round left in the artifact store, by kind; rounds that say so."""
        rounds: dict[int, dict[str, int]] = {}
        for stage in self.stages:
            for kind, size in stage.kept_bytes.items():
                sizes = rounds.setdefault(stage.round, {})
                sizes[kind] = sizes.get(kind, 0) + size
        return rounds

    @property
    def seconds(self) -> float:
        """Of all stages together."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_are(self) -> str:
        """What the seconds of stages are, in a word or two.

        Not all shards of a stage need to run at once: of several, no wall time is known.
        """
        return "time" if self.spec.shards == 1 else "longest shard"


def measure_names(spec: LearningSpec) -> tuple[Metric, ...]:
    """What a domain measures every answer by."""
    return tuple(measure.name for measure in get_domain(spec.domain).measures)


def right_of(spec: LearningSpec) -> Metric:
    """The measure by which an answer is marked right."""
    return get_domain(spec.domain).words.right


def shares_of(spec: LearningSpec) -> frozenset[Metric]:
    """The metrics of which a mean is a share of successes."""
    shares = {one.name for one in get_domain(spec.domain).measures if one.is_success}
    return frozenset(shares | ({"score"} if spec.evaluation.grader in shares else set()))


def metrics_of(spec: LearningSpec) -> tuple[Metric, ...]:
    """Every grade that an answer has."""
    return (*measure_names(spec), "logprob", "score")


def measures_of(spec: LearningSpec) -> tuple[Metric, ...]:
    """The measures of a run: those of its domain and, if it is another, its reward."""
    grader, measures = spec.evaluation.grader, measure_names(spec)
    reward: Metric = "score" if grader == "judge" else grader
    return (*measures, *(() if reward in measures else (reward,)))


def last_edits(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    """Self-edits of the latest round among rows, which come by round."""
    edits = [row for row in rows if row.kind == "edit"]
    return edits[-1] if edits else None
