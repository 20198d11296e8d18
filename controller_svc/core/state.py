"""What the controller knows of a run or an adaptation: `RunStatus`.

It is plain data. The status is all the memory there is: local mode keeps it in `status.json`, a
cluster in the custom resource's status subresource. It stays small however many shards a stage has:
finished ones are ranges of indexes, failed ones are counted and the first few named, and a round is
a few sums.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from seal import errors
from seal.records import (
    AdaptationCounts,
    AdaptationResult,
    AdapterReference,
    Record,
    ScoreSum,
    Stage,
)


class Phase(StrEnum):
    """Where a run or an adaptation is. It only moves down this list; the last three are final."""

    PENDING = "Pending"
    """Accepted, nothing started."""
    RUNNING = "Running"
    """A stage is under way."""
    COMPLETE = "Complete"
    """All rounds are done; of an adaptation: the gate has judged, whatever it said."""
    FAILED = "Failed"
    """Ended early; the condition `Failed` says why."""
    CANCELLED = "Cancelled"
    """Stopped because its owner wished it."""

    @property
    def terminal(self) -> bool:
        """True if nothing follows."""
        return self in (Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED)


class StageState(StrEnum):
    """Where the current stage is."""

    RUNNING = "Running"
    """Wanted: started, or to be started if the world does not show it."""
    FAILED = "Failed"
    """Its last attempt failed and there is no other."""


class Reason(StrEnum):
    """CamelCase reasons of conditions, beside those of `seal.errors`. They are API."""

    PREPARE_RUNNING = "PrepareRunning"
    """The data are read, checked and pinned."""
    ROLLOUT_RUNNING = "RolloutRunning"
    """E-step."""
    IMPROVE_RUNNING = "ImproveRunning"
    """M-step."""
    VALIDATE_RUNNING = "ValidateRunning"
    """Validation."""
    QUESTION_RUNNING = "QuestionRunning"
    """The base model makes questions."""
    ADAPT_RUNNING = "AdaptRunning"
    """The adapter is trained, measured and judged."""
    RESUMED = "Resumed"
    """A failed or suspended run was taken up again, or a finished one was given more rounds, by its
    owner."""
    ALL_ROUNDS_DONE = "AllRoundsDone"
    """The end that was asked for."""
    PUBLISHED = "Published"
    """The gate let the adapter pass; of one that it refused the reason is the gate's own."""
    CANCELLED = "Cancelled"
    """Its owner wished it to stop."""
    SUSPENDED = "Suspended"
    """Its owner wished it to stop for now."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """A stage failed transiently as often as its budget allows."""
    SUPERSEDED = errors.SUPERSEDED
    """A newer controller started the same stage: this attempt ends, and another takes its place."""
    TOO_FEW_SCORES = "TooFewScores"
    """So many inner loops of a stage have no score that what follows would rest on chance."""
    RUN_FAILED = "RunFailed"
    """Progress ended because the run failed; the condition `Failed` has the cause."""


class Status(Record):
    """Base of the status models, which are records that a controller keeps."""


class Condition(Status):
    """One condition in the manner of Kubernetes."""

    type: Literal["Progressing", "Suspended", "Complete", "Failed", "Cancelled"]
    status: Literal["True", "False"]
    reason: str
    """CamelCase; API."""
    message: str = ""
    """For people; at most 1 kB."""
    last_transition_seconds: float = 0.0
    """Unix time at which `status` last changed."""


class FailedShard(Status):
    """One shard that its attempts could not finish."""

    index: int
    reason: str
    """CamelCase reason of the error class."""
    message: str
    """For people; cut."""


class StageStatus(Status):
    """The current stage; of several attempts the latest."""

    name: str
    stage: Stage
    round: int
    shards: int
    """Parts that the stage is cut into."""
    attempt: int = 1
    """From 1; it only grows, also when a failed run is taken up again."""
    opened_attempt: int = 1
    """Attempt from which the budget counts: the first, or the one of the last resume."""
    state: StageState = StageState.RUNNING
    delay_seconds: float = 0.0
    """Pause before this attempt starts (back-off)."""
    completed: str = ""
    """Indexes of finished shards as ranges: `0,3-5`."""
    failed: tuple[FailedShard, ...] = ()
    """The first few shards that failed in this attempt or, until one does, in the one before."""
    failed_shards: int = 0
    """How many failed."""
    message: str = ""
    """Why the attempt before it failed; at most 1 kB."""
    counted: bool = False
    """Its sums are in the status already: it ended with too few scores, and was taken up again."""


class PolicyStatus(Status):
    """The policy after a round's M-step; of round 0 the base model, or that of a warm start."""

    round: int
    adapter: AdapterReference | None
    """None: the base model alone."""
    trained: bool
    """False if this round kept nothing (or diverged) and the policy is that of the round before."""
    supervised: bool = False
    """True if it learnt gold pairs: a warm start. Later rounds that go on from it keep False."""


class RoundStatus(Status):
    """What a round came to."""

    round: int
    label: str = ""
    """What must be said wherever the round is shown: "control without reward", "warm start,
    supervised"; else empty."""
    kept: int = 0
    """Edits that the M-step learnt, whole or in part."""
    kept_parts: int = 0
    """Parts of these that it learnt; of a warm start gold rows."""
    selection_sha256: str = ""
    """Digest of the kept edits."""
    rollout: dict[str, ScoreSum] = Field(default={})
    """Scores over the training contexts by name (see `ShardSummary.scores`)."""
    validation: dict[str, ScoreSum] = Field(default={})
    """Scores over the held-out contexts by name."""
    measures: dict[str, ScoreSum] = Field(default={})
    """What is watched of edits and answers, by `stage/name` (see `ShardSummary.measures`); of the
    newest rounds alone."""
    dropped: dict[str, int] = Field(default={})
    """Edits that the M-step did not learn, by reason."""
    outcomes: dict[str, int] = Field(default={})
    """Inner loops by `stage/outcome`."""
    tokens: dict[str, int] = Field(default={})
    """Tokens by `stage/kind`."""
    engine_seconds: dict[str, float] = Field(default={})
    """Engine seconds by `stage/kind`."""
    seconds: dict[str, float] = Field(default={})
    """Longest wall time of a shard, by stage."""
    stored_bytes: dict[str, int] = Field(default={})
    """Bytes that the round wrote to the artifact store, by kind; inner adapters go later."""
    inner_loops_run: int = 0
    """Inner loops that the attempts which ended the shards did themselves."""
    inner_loops_resumed: int = 0
    """Inner loops that they found finished by an earlier attempt."""


class FinishedStage(Status):
    """What a stage of an adaptation has cost."""

    stage: Stage
    tokens: dict[str, int]
    """Tokens by kind: generate, train, evaluate."""
    engine_seconds: dict[str, float]
    """Engine seconds by kind."""
    seconds: float
    """Longest wall time of a shard."""
    ended_seconds: float
    """Unix time at which its end was seen."""


class AdaptationStatus(Status):
    """What an adaptation came to, stage by stage. What is once there does not change."""

    documents: int
    """Documents of the request."""
    self_made: bool
    """The model makes the questions: to be said wherever a number from them is shown."""
    accepted_seconds: float = 0.0
    """Unix time at which it was accepted."""
    prepared: AdaptationCounts | None = None
    """What the documents came to; None until they are read."""
    questioned: AdaptationCounts | None = None
    """Questions that the model made; None until it has, or if it makes none."""
    edits: dict[str, int] = Field(default={})
    """Edits that were tried, by outcome."""
    scores: dict[str, ScoreSum] = Field(default={})
    """Scores of the rollout by name (see `ShardSummary.scores`)."""
    measures: dict[str, ScoreSum] = Field(default={})
    """What is watched of its edits and answers (see `ShardSummary.measures`)."""
    result: AdaptationResult | None = None
    """The adapter, its evaluation and the verdict; None until then."""
    stages: tuple[FinishedStage, ...] = ()
    """Stages that are done, in order."""

    @property
    def counts(self) -> AdaptationCounts:
        """What is known so far, of all stages."""
        return (self.prepared or AdaptationCounts()) + (self.questioned or AdaptationCounts())

    def ended(self, stage: Stage) -> FinishedStage | None:
        """A stage that is done; None if it is not."""
        return next((done for done in self.stages if done.stage is stage), None)


class Cost(Status):
    """What all stages that have ended took. The sums only grow, whatever else a status drops."""

    tokens: dict[str, int] = Field(default={})
    """Tokens by `stage/kind`."""
    engine_seconds: dict[str, float] = Field(default={})
    """Engine seconds by `stage/kind`; GPU seconds where the trainer computes on one."""


class Counters(Status):
    """What happened so far. They only grow."""

    stages_started: int = 0
    """Attempts that were wanted."""
    stages_succeeded: int = 0
    """Stages finished."""
    stages_failed: int = 0
    """Attempts that failed."""
    shards_succeeded: int = 0
    """Shards of finished stages."""


class RunStatus(Status):
    """All that is known of a run."""

    run: str
    spec_sha256: str
    """Digest of the spec that the run is pinned to."""
    phase: Phase = Phase.PENDING
    round: int = 0
    stage: Stage | None = None
    """None before the start and after the end."""
    current: StageStatus | None = None
    """The stage at work; None where `stage` is."""
    policies: tuple[PolicyStatus, ...] = ()
    """One per round that has a policy; the last is the best there is."""
    rounds: tuple[RoundStatus, ...] = ()
    """One per round that finished a stage."""
    adaptation: AdaptationStatus | None = None
    """What an adaptation came to so far; None of a run, which has `policies` and `rounds`."""
    device: str = ""
    """Type of the device that the trainer's engine computed on when the data were prepared; empty
    while nobody has said."""
    conditions: tuple[Condition, ...] = ()
    """One per type."""
    cost: Cost = Cost()
    counters: Counters = Counters()
    started_seconds: float | None = None
    """Unix time of the start."""
    finished_seconds: float | None = None
    """Unix time of the end."""

    def condition(self, type: str) -> Condition | None:
        """The condition of that type, if it is set."""
        return next((condition for condition in self.conditions if condition.type == type), None)
