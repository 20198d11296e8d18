"""What the controller knows of a run: `RunStatus`, and what it sees of the world: `Observed`.

Both are plain data. The status is all the memory there is: local mode keeps it in `status.json`, a
cluster in the custom resource's status subresource. It stays small: tasks of the current stage
only, one summary per finished round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from seal.records import AdapterReference, ScoreSum, ShardSummary


class Phase(StrEnum):
    """Where a run is. It only moves down this list; the last two are final."""

    PENDING = "Pending"
    """Accepted, nothing started."""
    RUNNING = "Running"
    """Tasks of `round` and `stage` are under way."""
    COMPLETE = "Complete"
    """All rounds are done."""
    FAILED = "Failed"
    """Ended early; the condition `Failed` says why."""

    @property
    def terminal(self) -> bool:
        """True if nothing follows."""
        return self in (Phase.COMPLETE, Phase.FAILED)


class Stage(StrEnum):
    """The kinds of work of a round."""

    ROLLOUT = "rollout"
    """E-step: k edits per training context, an inner loop on each."""
    IMPROVE = "improve"
    """M-step: the policy learns the kept edits."""
    VALIDATE = "validate"
    """The policy is measured on held-out contexts."""


class TaskState(StrEnum):
    """Where a task is."""

    RUNNING = "Running"
    """Wanted: started, or to be started if the world does not show it."""
    SUCCEEDED = "Succeeded"
    """Its summary is in the status."""
    FAILED = "Failed"
    """Its last attempt failed and there is no other."""
    STOPPED = "Stopped"
    """The run ended before it did."""


class Reason(StrEnum):
    """CamelCase reasons of conditions, beside those of `seal.errors`. They are API."""

    ACCEPTED = "Accepted"
    """The run is known and nothing has started."""
    ROLLOUT_RUNNING = "RolloutRunning"
    """E-step."""
    IMPROVE_RUNNING = "ImproveRunning"
    """M-step."""
    VALIDATE_RUNNING = "ValidateRunning"
    """Validation."""
    RESUMED = "Resumed"
    """A failed run was taken up again by its owner."""
    ALL_ROUNDS_DONE = "AllRoundsDone"
    """The end that was asked for."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """A task failed transiently as often as its budget allows."""
    RUN_FAILED = "RunFailed"
    """Progress ended because the run failed; the condition `Failed` has the cause."""
    WRONG_RESULT = "WrongResult"
    """A task delivered the summary of another task."""


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


class TaskStatus(Status):
    """One shard of the current stage; of several attempts the latest."""

    name: str
    stage: Stage
    round: int
    shard: int
    attempt: int
    """From 1."""
    state: TaskState = TaskState.RUNNING
    delay_seconds: float = 0.0
    """Pause before this attempt starts (back-off)."""
    message: str = ""
    """Why the attempt before this one, or this one, failed."""
    summary: ShardSummary | None = None
    """The result, once it succeeded."""


class PolicyStatus(Status):
    """The policy after a round's M-step; round 0 is the base model."""

    round: int
    adapter: AdapterReference | None
    """None: the base model alone."""
    improved: bool
    """False if this round kept nothing (or diverged) and the policy is that of the round before."""


class RoundStatus(Status):
    """What a round came to."""

    round: int
    kept: int = 0
    """Edits that the M-step learnt."""
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
    inner_loops_run: int = 0
    """Inner loops that the attempts which ended the shards did themselves."""
    inner_loops_resumed: int = 0
    """Inner loops that they found finished by an earlier attempt."""


class Counters(Status):
    """What happened so far. They only grow."""

    tasks_started: int = 0
    """Attempts that were wanted."""
    tasks_succeeded: int = 0
    """Shards finished."""
    tasks_failed: int = 0
    """Attempts that failed."""


class RunStatus(Status):
    """All that is known of a run."""

    run: str
    spec_sha256: str
    """Digest of the spec that the run is pinned to."""
    phase: Phase = Phase.PENDING
    round: int = 0
    stage: Stage | None = None
    """None before the start and after the end."""
    tasks: tuple[TaskStatus, ...] = ()
    """Tasks of the current stage, one per shard, in the order of the shards."""
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
class TaskSucceeded:
    """A task's end: its summary."""

    summary: ShardSummary


@dataclass(frozen=True, kw_only=True)
class TaskFailed:
    """A task's end: its error."""

    permanent: bool
    """True if another attempt would fail the same way."""
    reason: str
    """CamelCase reason of the error class."""
    message: str
    retry_after_seconds: float = 0.0
    """The least pause that the failing side asked for."""


TaskResult = TaskSucceeded | TaskFailed


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The world as it looks now. What is absent is unknown, never failed."""

    live: frozenset[str] = frozenset()
    """Names of the run's tasks that exist and have not ended."""
    results: Mapping[str, TaskResult] = field(default_factory=dict)
    """Ends of tasks by name."""
    now_seconds: float = 0.0
    """Unix time; only stamped on transitions, never decided upon."""


@dataclass(frozen=True, kw_only=True)
class StartTask:
    """Start one task under this name, unless it exists already."""

    name: str
    run: str
    stage: Stage
    round: int
    shard: int
    shards: int
    """Shards of this stage in all."""
    attempt: int
    policy: AdapterReference | None
    """The policy that the stage works with; None is the base model."""
    delay_seconds: float = 0.0
    """Wait so long first."""


@dataclass(frozen=True, kw_only=True)
class StopTask:
    """Stop a task that nothing wants any more."""

    name: str


Action = StartTask | StopTask


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to write down and then do, in that order.

    The intent is on disk before the side effect.
    """

    status: RunStatus
    actions: tuple[Action, ...]
