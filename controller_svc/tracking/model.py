"""What a tracker is told, and who tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from controller_svc.core import Phase, RunStatus
from seal.settings import RunSpec


@dataclass(frozen=True, kw_only=True)
class Telling:
    """A run as it is now, to be told of."""

    name: str
    """What its owner calls it."""
    spec: RunSpec
    status: RunStatus

    @property
    def run(self) -> str:
        """Its name in the store."""
        return self.status.run


@dataclass(frozen=True, kw_only=True)
class TrackedRound:
    """A round whose validation is over."""

    round: int
    time_seconds: float
    """Unix time at which it ended."""
    metrics: Mapping[str, float]
    """By name; what is missing is absent."""


@dataclass(frozen=True, kw_only=True)
class TrackedEnd:
    """How a run has ended."""

    phase: Phase
    time_seconds: float
    """Unix time."""
    summary: str
    """What came out, or why it failed, in a few sentences."""
    directories: Mapping[str, Path] = field(default_factory=dict)
    """Files to hand over, by name of the artifact: `report`, `policy`."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """The state that a tracker is brought to."""

    uid: str
    """Of the run, 32 hex digits: the same whoever tells of it."""
    name: str
    experiment: str
    started_seconds: float
    """Unix time."""
    parameters: Mapping[str, str]
    """The spec's leaves by dotted name."""
    tags: Mapping[str, str]
    rounds: tuple[TrackedRound, ...]
    """Those that the tracker is not known to have, in order."""
    end: TrackedEnd | None
    """None while it goes on."""


class TrackingSink(Protocol):
    """A tracker. Its calls block, and may come from any thread, one at a time."""

    @property
    def place(self) -> str:
        """Where it is, without credentials."""

    def write(self, run: TrackedRun) -> None:
        """Bring what it holds of a run to this state; what is there stays, and is not doubled.

        Raises:
            Transient: it is away.
            InvalidInput: it refuses what it is told, or who tells it.

        """
