"""What the controller knows of a run: `RunStatus`, and what it sees of the world: `Observed`.

Both are plain data. The status is all the memory there is: local mode keeps it in `status.json`, a
cluster in the custom resource's status subresource. It stays small however many shards a stage has:
finished ones are ranges of indexes, failed ones are counted and the first few named, and a round is
a few sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from seal.records import AdapterReference, ScoreSum, Stage


class Phase(StrEnum):
    """Where a run is. It only moves down this list; the last two are final."""

    PENDING = "Pending"
    """Accepted, nothing started."""
    RUNNING = "Running"
    """A stage is under way."""
    COMPLETE = "Complete"
    """All rounds are done."""
    FAILED = "Failed"
    """Ended early; the condition `Failed` says why."""

    @property
    def terminal(self) -> bool:
        """True if nothing follows."""
        return self in (Phase.COMPLETE, Phase.FAILED)


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
    RESUMED = "Resumed"
    """A failed run was taken up again, or a finished one was given more rounds, by its owner."""
    ALL_ROUNDS_DONE = "AllRoundsDone"
    """The end that was asked for."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """A stage failed transiently as often as its budget allows."""
    SUPERSEDED = "Superseded"
    """A newer controller started the same stage: this attempt ends, and another takes its place."""
    TOO_FEW_SCORES = "TooFewScores"
    """So many inner loops of a stage have no score that what follows would rest on chance."""
    RUN_FAILED = "RunFailed"
    """Progress ended because the run failed; the condition `Failed` has the cause."""


class Status(BaseModel):
    """Base of the status models: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Condition(Status):
    """One condition in the manner of Kubernetes."""

    type: Literal["Progressing", "Complete", "Failed"]
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
    """Why it waits, or why the attempt before it failed; at most 1 kB."""


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
    rollout: dict[str, ScoreSum] = {}
    """Scores over the training contexts by name (see `ShardSummary.scores`)."""
    validation: dict[str, ScoreSum] = {}
    """Scores over the held-out contexts by name."""
    outcomes: dict[str, int] = {}
    """Inner loops by `stage/outcome`."""
    tokens: dict[str, int] = {}
    """Tokens by kind."""
    engine_seconds: dict[str, float] = {}
    """Engine seconds by kind."""
    seconds: dict[str, float] = {}
    """Longest wall time of a shard, by stage."""
    stored_bytes: dict[str, int] = {}
    """Bytes that the round wrote to the artifact store, by kind; inner adapters go later."""
    inner_loops_run: int = 0
    """Inner loops that the attempts which ended the shards did themselves."""
    inner_loops_resumed: int = 0
    """Inner loops that they found finished by an earlier attempt."""


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
    conditions: tuple[Condition, ...] = ()
    """One per type."""
    counters: Counters = Counters()
    started_seconds: float | None = None
    """Unix time of the start."""
    finished_seconds: float | None = None
    """Unix time of the end."""

    def condition(self, type: str) -> Condition | None:
        """The condition of that type, if it is set."""
        return next((condition for condition in self.conditions if condition.type == type), None)


@dataclass(frozen=True, kw_only=True)
class FailedIndex:
    """Why a shard has failed, for all the retries that its Job (or its stand-in) made."""

    reason: str
    """CamelCase reason of the error class."""
    message: str
    permanent: bool = False
    """True if another attempt of the stage would fail the same way."""
    retry_after_seconds: float = 0.0
    """The least pause that the failing side asked for."""


@dataclass(frozen=True, kw_only=True)
class StageSums:
    """What the shards of a finished stage came to together."""

    stage: Stage
    round: int
    shards: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    engine_seconds: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    """Longest wall time of a shard."""
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    inner_loops_run: int = 0
    inner_loops_resumed: int = 0
    scores: Mapping[str, ScoreSum] = field(default_factory=dict)
    policy: AdapterReference | None = None
    """`improve` only: the new policy; None if there is none."""
    kept: int = 0
    """`improve` only, as the two that follow."""
    kept_parts: int = 0
    label: str = ""
    result_sha256: str = ""
    """Digest over the shards' own result digests, in order; of one shard its own."""


@dataclass(frozen=True, kw_only=True)
class StageObserved:
    """One attempt of a stage as the world shows it."""

    completed: str = ""
    """Indexes of shards that it finished, as ranges: `0,3-5`."""
    failed: Mapping[int, FailedIndex] = field(default_factory=dict)
    """Shards that it will not try again."""
    ended: bool = False
    """Nothing of it runs any more, and nothing will."""
    sums: StageSums | None = None
    """Once it ended with every shard finished: what the store's summaries add up to."""
    message: str = ""
    """Why it waits, or why it ended without finishing."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The world as it looks now. What is absent is unknown, never failed."""

    stages: Mapping[str, StageObserved] = field(default_factory=dict)
    """Attempts of the run's stages that the world knows of, by name."""
    epoch: int = 1
    """Number of this controller's turn; what it starts carries it."""
    now_seconds: float = 0.0
    """Unix time; only stamped on transitions, never decided upon."""


@dataclass(frozen=True, kw_only=True)
class StartStage:
    """Start one attempt of a stage under this name, unless it exists already."""

    name: str
    run: str
    stage: Stage
    round: int
    shards: int
    """Parts that the stage is cut into, each one index."""
    attempt: int
    epoch: int
    """What an older one commits is refused."""
    policy: AdapterReference | None
    """The policy that the stage works with; None is the base model."""
    delay_seconds: float = 0.0
    """Wait so long first."""


@dataclass(frozen=True, kw_only=True)
class StopStage:
    """Stop an attempt that nothing wants any more."""

    name: str


Action = StartStage | StopStage


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to write down and then do, in that order.

    The intent is on disk before the side effect.
    """

    status: RunStatus
    actions: tuple[Action, ...]
