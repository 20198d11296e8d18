"""What happens to an adaptation, as its watch tells it: one dataclass per kind of event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seal.client.evaluations import Evaluation, Verdict
from seal.client.types import (
    Counts,
    Progress,
    State,
)
from seal.records import AdapterReference


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """It was accepted: the first event."""

    documents: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The documents are read, cut into passages and checked against the model."""

    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Questioned:
    """The model has made questions of its own."""

    written: int
    kept: int
    """Answered the same way again with the passage, and not without it."""
    held_out: int
    """Of these, held back as the test."""


@dataclass(frozen=True, kw_only=True)
class Rewarded:
    """Edits are written, tried and rewarded."""

    edits: Mapping[str, int]
    """By outcome."""
    baseline: float | None
    """Mean reward of the base model alone."""
    reward: float | None
    """Mean reward of all edits."""
    best: float | None
    """Mean reward of each passage's best edit."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The adapter's training has ended; what came of it is evaluated."""

    adapter: AdapterReference | None
    """None: the training came to nothing; the gate says why."""
    rows: Mapping[str, int]
    """By kind."""
    evaluation: Evaluation | None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The gate has judged."""

    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Ended:
    """It has ended: the last event."""

    state: State
    message: str
    """Why, if it failed."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """How far it is; not kept, so that a later watch does not tell it again."""

    progress: Progress


What = Accepted | Prepared | Questioned | Rewarded | Trained | Judged | Ended | Advanced


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to an adaptation."""

    sequence: int
    """From 1 and without gaps; of `Advanced` the number of the last event before it."""
    time_seconds: float | None
    what: What
