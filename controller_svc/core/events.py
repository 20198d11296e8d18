"""What happened to an adaptation, as numbered events: a pure function of its status.

Each event rests on a part of the status that is written once, and the parts are written in the
order of the events. So event 3 is the same whenever it is asked for and whoever asks: a watch goes
on from any number, on any server, without a log of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller_svc.core.state import AdaptationStatus, Phase, RunStatus
from seal.records import (
    AdaptationCounts,
    AdaptationEvaluation,
    AdapterReference,
    GateVerdict,
    RowKind,
    Stage,
)


class AdaptationState(StrEnum):
    """Where an adaptation is, as callers see it. The last four are final."""

    PENDING = "Pending"
    """Accepted, waits for its turn."""
    RUNNING = "Running"
    """At work."""
    PUBLISHED = "Published"
    """The gate let the adapter pass."""
    REFUSED = "Refused"
    """The gate refused the adapter, which stays readable."""
    FAILED = "Failed"
    """Ended without an adapter; the condition `Failed` says why."""
    CANCELLED = "Cancelled"
    """Stopped by its owner."""

    @property
    def final(self) -> bool:
        """True if nothing follows."""
        return self not in (AdaptationState.PENDING, AdaptationState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The first event."""

    documents: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The documents are read, cut into passages and checked against the model."""

    counts: AdaptationCounts
    self_made: bool
    """The model will make the questions."""


@dataclass(frozen=True, kw_only=True)
class Questioned:
    """The model has made questions."""

    written: int
    kept: int
    held_out: int
    """Of these, held back as the test."""


@dataclass(frozen=True, kw_only=True)
class Rewarded:
    """Edits are written, tried and rewarded. A mean without scores is None."""

    edits: Mapping[str, int] = field(default_factory=dict)
    """Edits by outcome."""
    baseline: float | None
    """The base model alone."""
    reward: float | None
    """All edits."""
    best: float | None
    """Each passage's best edit."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The adapter is trained and evaluated."""

    adapter: AdapterReference | None
    """None if its training came to nothing."""
    rows: Mapping[RowKind, int]
    """Rows learnt, by kind."""
    evaluation: AdaptationEvaluation


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The gate has judged."""

    verdict: GateVerdict


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last event."""

    state: AdaptationState
    """A final one."""
    message: str
    """Why, if it failed."""


What = Accepted | Prepared | Questioned | Rewarded | Trained | Judged | Ended


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, once and for all."""

    sequence: int
    """From 1, without gaps."""
    time_seconds: float
    """Unix time."""
    what: What


def adaptation_state(status: RunStatus) -> AdaptationState:
    """Where an adaptation is.

    Raises:
        LookupError: the status is that of a run.

    """
    adaptation = _adaptation(status)
    if status.phase is not Phase.COMPLETE:
        return AdaptationState(str(status.phase))
    passed = adaptation.result is not None and adaptation.result.gate.passed
    return AdaptationState.PUBLISHED if passed else AdaptationState.REFUSED


def events(status: RunStatus) -> tuple[Event, ...]:
    """All that has happened to an adaptation, in order; a later status only adds to it.

    Raises:
        LookupError: the status is that of a run.

    """
    happened = _happened(status, _adaptation(status))
    return tuple(
        Event(sequence=sequence, time_seconds=seconds, what=what)
        for sequence, (seconds, what) in enumerate(happened, start=1)
    )


def _adaptation(status: RunStatus) -> AdaptationStatus:
    if status.adaptation is None:
        raise LookupError(f"{status.run} is no adaptation")
    return status.adaptation


def _happened(status: RunStatus, adaptation: AdaptationStatus) -> Iterator[tuple[float, What]]:
    """(Unix time, what) in order."""
    yield adaptation.accepted_seconds, Accepted(documents=adaptation.documents)
    for done in adaptation.stages:
        for what in _of_stage(adaptation, done.stage):
            yield done.ended_seconds, what
    state = adaptation_state(status)
    if state.final:
        failed = status.condition("Failed")
        message = failed.message if failed is not None and failed.status == "True" else ""
        yield status.finished_seconds or 0.0, Ended(state=state, message=message)


def _of_stage(adaptation: AdaptationStatus, stage: Stage) -> Iterator[What]:
    """What the end of a stage means."""
    if stage is Stage.PREPARE and adaptation.prepared is not None:
        yield Prepared(counts=adaptation.prepared, self_made=adaptation.self_made)
    elif stage is Stage.QUESTION and (made := adaptation.questioned) is not None:
        yield Questioned(
            written=made.questions_written,
            kept=made.reward_questions + made.held_out_questions,
            held_out=made.held_out_questions,
        )
    elif stage is Stage.ROLLOUT:
        scores = adaptation.scores
        baseline, reward, best = (
            scores[name].mean if name in scores else None for name in ("baseline", "edit", "best")
        )
        yield Rewarded(edits=adaptation.edits, baseline=baseline, reward=reward, best=best)
    elif stage is Stage.ADAPT and (result := adaptation.result) is not None:
        yield Trained(adapter=result.adapter, rows=result.rows, evaluation=result.evaluation)
        yield Judged(verdict=result.gate)
