"""What became of a run or an adaptation between two statuses: what its conditions say is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller_svc.core.state import Condition, Reason, RunStatus

STAGE_AGAIN = "StageAgain"
"""Reason of the Event of another attempt of a stage."""


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One thing that became of an object."""

    reason: str
    """CamelCase; API."""
    message: str
    """For people."""
    warning: bool
    """Whether somebody may have to do something."""
    stage: str = ""
    """Attempt of a stage at which it happened; empty for none."""
    since_seconds: float = 0.0
    """Unix time, of what may happen again at the same stage; else 0."""
    step: bool = False
    """Whether it says where the object is: after the next step nobody asks for it."""


def transitions(before: RunStatus, after: RunStatus) -> Iterator[Transition]:
    """What became of an object between two statuses, in order."""
    stage = after.current.name if after.current is not None else ""
    if (attempt := _again(before, after)) is not None:
        yield Transition(reason=STAGE_AGAIN, message=attempt, warning=True, stage=stage)
    for condition in after.conditions:
        old = before.condition(condition.type)
        moved = old is None or (old.status, old.reason) != (condition.status, condition.reason)
        # A stage of the next round is another one under the same reason
        entered = condition.type == "Progressing" and _entered(before, after)
        # It was told of the first attempt; only who starts anew does not know that
        known = attempt is not None and old is None and _runs(condition)
        if (moved or entered) and not known and _is_told(condition, after):
            yield Transition(
                reason=condition.reason,
                message=condition.message,
                warning=_is_warning(condition),
                stage=stage,
                since_seconds=_since(condition),
                step=_runs(condition) or condition.type in ("Complete", "Cancelled"),
            )


def _since(condition: Condition) -> float:
    """A run is suspended and taken up as often as its owner likes."""
    return condition.last_transition_seconds if condition.type == "Suspended" else 0.0


def _again(before: RunStatus, after: RunStatus) -> str | None:
    """Why a stage is tried again; None if it is not."""
    old, new = before.current, after.current
    same = old is not None and new is not None and old.name == new.name
    if new is None or new.attempt == 1 or same or after.phase.terminal:
        return None
    return f"attempt {new.attempt} of {new.stage}: {new.message}"


def _runs(condition: Condition) -> bool:
    return (condition.type, condition.status) == ("Progressing", "True")


def _entered(before: RunStatus, after: RunStatus) -> bool:
    return (before.round, before.stage) != (after.round, after.stage)


def _is_told(condition: Condition, after: RunStatus) -> bool:
    """Whether it says something that no other condition says better."""
    if condition.type != "Progressing":
        return condition.status == "True" or condition.reason == Reason.RESUMED
    return not after.phase.terminal and condition.reason != Reason.SUSPENDED


def _is_warning(condition: Condition) -> bool:
    return condition.type == "Failed" or (
        condition.type == "Progressing" and condition.status == "False"
    )
