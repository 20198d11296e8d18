"""What the controller sees of the world, and what it decides to do about it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller_svc.core.state import RunStatus
from seal.records import AdaptationCounts, AdaptationResult, AdapterReference, ScoreSum, Stage


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
    measures: Mapping[str, ScoreSum] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    device: str = ""
    policy: AdapterReference | None = None
    """`improve` only: the new policy; None if there is none."""
    kept: int = 0
    """`improve` only, as the two that follow."""
    kept_parts: int = 0
    label: str = ""
    counts: AdaptationCounts | None = None
    """`prepare` and `question` of an adaptation only."""
    result: AdaptationResult | None = None
    """`adapt` only."""
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
    waits: str = ""
    """CamelCase reason why it does not get on; empty if nothing keeps it."""
    message: str = ""
    """Why it waits, or why it ended without finishing."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The world as it looks now. What is absent is unknown, never failed."""

    stages: Mapping[str, StageObserved] = field(default_factory=dict)
    """Attempts of the run's stages that the world knows of, by name."""
    cancelled: bool = False
    """Its owner wishes it to stop. Once seen it stays so."""
    suspended: bool = False
    """Its owner wishes it to stop for now."""
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
