"""What an adaptation leaves: questions of its own, what its adapter is worth, and the verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from seal.outcomes import Outcome
from seal.records.base import AdapterReference, Record
from seal.records.intervals import Interval

QuestionRole = Literal["reward", "held-out"]
"""`reward`: the choice of edits looks at it; `held-out`: the test, which nothing is chosen by."""
ScoredModel = Literal["base", "passages", "adapter"]
"""Who was asked: the base model, with the adapter of the passages alone, or with the adapter."""
Measure = Literal["f1", "exact", "contains", "logprob"]
"""By what an answer is graded: 0 to 1; of `logprob` nats per token of the gold answer."""
RowKind = Literal["edit", "passage", "replay"]
"""What an adapter learns: examples of the chosen edits, the passages, rows of other passages."""


class KeptQuestion(Record):
    """One question on a passage, with what it is for."""

    query_id: str
    question: str
    answers: tuple[str, ...]
    """Acceptable answers."""
    role: QuestionRole


class QuestionsRecord(Record):
    """The questions that the base model made on one passage, written once."""

    context_id: str
    kept: tuple[KeptQuestion, ...]
    written: int
    """Questions that it wrote."""
    dropped: dict[str, int]
    """Those not kept, by reason (`seal.adaptations.self_made`)."""
    outcome: Outcome = Outcome.OK
    """Why the passage has no questions, where it is itself at fault: too long, for example."""
    tokens: dict[str, int] = Field(default={})
    """Tokens by kind: generate, evaluate."""
    engine_seconds: dict[str, float] = Field(default={})
    """This passage's share of the engine's time, by kind."""


class AdaptationCounts(Record):
    """What the documents of an adaptation came to. Counts of shards and stages add up."""

    documents: int = 0
    """Documents read."""
    passages: int = 0
    """Passages that they were cut into."""
    passages_too_long: int = 0
    """Of these, passages that the model cannot take."""
    reward_questions: int = 0
    """Questions that the choice of edits looks at."""
    held_out_questions: int = 0
    """Questions of the test."""
    questions_dropped: int = 0
    """Questions that were given and are not used: on both sides of the split, for example."""
    questions_written: int = 0
    """Questions that the model made, kept or not."""

    def __add__(self, other: AdaptationCounts) -> AdaptationCounts:
        """Both together."""
        ours, theirs = self.model_dump(), other.model_dump()
        return AdaptationCounts(**{name: ours[name] + theirs[name] for name in ours})


class ModelScore(Record):
    """What one model is worth by one measure."""

    model: ScoredModel
    measure: Measure
    value: Interval
    """Its mean over the passages."""


class ModelDifference(Record):
    """One model against another by one measure, passage by passage."""

    model: ScoredModel
    against: ScoredModel
    measure: Measure
    value: Interval
    """First minus second."""


class AdaptationEvaluation(Record):
    """What an adapter is worth on questions that nothing was trained on or chosen by."""

    questions: int
    """Questions of the test."""
    self_made: bool
    """The model itself made the questions: to be said wherever a number from them is shown."""
    scores: tuple[ModelScore, ...] = ()
    """Every model by every measure that it has a score by."""
    differences: tuple[ModelDifference, ...] = ()
    """The adapter against the base model and against the passages alone."""
    retained_questions: int = 0
    """Questions of the retained set that were asked."""
    retained: tuple[ModelScore, ...] = ()
    """Base model and adapter on the retained set."""
    retained_change: Interval | None = None
    """The adapter against the base model on the retained set, in F1; None without a score."""

    @property
    def gain(self) -> Interval | None:
        """The adapter against the base model in F1, which the gate looks at; None without one."""
        return next(
            (
                difference.value
                for difference in self.differences
                if (difference.model, difference.against, difference.measure)
                == ("adapter", "base", "f1")
            ),
            None,
        )


class GateReason(StrEnum):
    """Why a gate refuses an adapter. CamelCase; API."""

    NO_SCORE = "NoScore"
    """A number that the gate asks for is missing."""
    GAIN_TOO_SMALL = "GainTooSmall"
    """The mean gain is below the least."""
    GAIN_UNCERTAIN = "GainUncertain"
    """The mean gain is enough, but its interval reaches below the least."""
    FORGETS = "Forgets"
    """The retained set has lost more than the budget."""


class GateVerdict(Record):
    """What the gate said and by which number."""

    passed: bool
    """The adapter is published."""
    reason: GateReason | None = None
    """Why it is not; None if it is."""
    message: str
    """In words, with the numbers."""


class AdaptationResult(Record):
    """What an adaptation came to, written once; with a passed verdict it is the publication."""

    adapter: AdapterReference | None
    """What learnt edits and passages; None if it has none, for which see `outcomes`."""
    passages_adapter: AdapterReference | None
    """What learnt the passages alone, for comparison."""
    outcomes: dict[Literal["passages", "adapter"], Outcome]
    """How the trainings ended."""
    rows: dict[RowKind, int]
    """Rows that the adapter learnt, by kind."""
    left_out: int = 0
    """Examples of chosen edits that ask a question of the test, and were not learnt."""
    evaluation: AdaptationEvaluation
    gate: GateVerdict
