"""What becomes of an object, told once to all who listen: log, events, metrics.

Each change of a condition is one line of the log, one Event for `kubectl describe`, and one count.
An Event's name is made from what it tells, so that a controller that starts anew, and tells again
what the one before may not have got to, repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from controller_svc.core import Condition, Reason, RunStatus
from controller_svc.k8s.api import EVENTS, ClusterApi, StatusRefused
from controller_svc.k8s.jobs import Owner
from controller_svc.k8s.objects import ObjectPublication
from seal.errors import Conflict, SealError
from seal.metrics import metrics
from seal.resources import API_VERSION
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

COMPONENT = "seal-controller"
RECENT_SECONDS = 120.0
"""An end so long before the first look at an object is told again: the controller before may have
died over it. Where something that has not ended is now is always told again."""
STAGE_AGAIN = "StageAgain"
"""Reason of the Event of another attempt of a stage."""
STATUS_REFUSED = "StatusRefused"
"""Reason of the Event of an object whose status the API server does not take."""
_HASH_CHARACTERS = 16


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


class Story:
    """Tells it. One for all objects of a controller's turn."""

    def __init__(self, api: ClusterApi, *, identity: str) -> None:
        self._api, self._identity = api, identity
        self._known: dict[tuple[str, str, str], str] = {}
        self._refused: set[str] = set()

    async def tell(
        self, owner: Owner, before: RunStatus, after: RunStatus, *, now_seconds: float
    ) -> None:
        """Tell what became of an object at a look; at the first one, also what had before."""
        place = (owner.kind, owner.namespace, owner.name)
        if self._known.get(place) != owner.uid:
            self._known[place] = owner.uid
            nothing = RunStatus(run=before.run, spec_sha256=before.spec_sha256)
            past = now_seconds - (before.finished_seconds or now_seconds) > RECENT_SECONDS
            for one in () if past else transitions(nothing, before):
                await self._post(owner, one, now_seconds)
        for one in transitions(before, after):
            await self._transition(owner, one, now_seconds)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """An object has gone."""
        uid = self._known.pop((kind, namespace, name), "")
        self._refused.discard(uid)

    async def tell_published(
        self, owner: Owner, shown: ObjectPublication, *, now_seconds: float
    ) -> None:
        """Tell what became of an adapter that is to be served."""
        one = Transition(
            reason=shown.reason,
            message=shown.message,
            warning=shown.ready is False,
        )
        await self._transition(owner, one, now_seconds)

    async def tell_refused(self, owner: Owner, error: StatusRefused, *, now_seconds: float) -> None:
        """Tell, once for an object and a controller, that its status cannot be written."""
        if owner.uid not in self._refused:
            self._refused.add(owner.uid)
            one = Transition(reason=STATUS_REFUSED, message=str(error), warning=True)
            await self._transition(owner, one, now_seconds)

    async def _transition(self, owner: Owner, one: Transition, now_seconds: float) -> None:
        """The one place where something that became of an object is written down."""
        write = log.warning if one.warning else log.info
        write(
            one.reason,
            kind=owner.kind,
            namespace=owner.namespace,
            name=owner.name,
            stage=one.stage,
            message=one.message,
        )
        metrics.transitions.labels(kind=owner.kind, reason=one.reason).inc()
        await self._post(owner, one, now_seconds)

    async def _post(self, owner: Owner, one: Transition, now_seconds: float) -> None:
        """An Event that was posted already stays as it is; one that is refused is only logged."""
        event = event_of(owner, one, identity=self._identity, now_seconds=now_seconds)
        try:
            await self._api.create(EVENTS, owner.namespace, event)
        except Conflict:
            pass
        except SealError as error:
            log.info("event not posted", reason=one.reason, name=owner.name, cause=str(error))


def event_of(owner: Owner, one: Transition, *, identity: str, now_seconds: float) -> Tree:
    """The Event of a transition."""
    told = f"{owner.uid}/{one.reason}/{one.stage or one.message}/{one.since_seconds:.6f}"
    tail = hashlib.sha256(told.encode()).hexdigest()[:_HASH_CHARACTERS]
    moment = datetime.fromtimestamp(int(now_seconds), tz=UTC).isoformat()
    involved: Tree = {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.name,
        "namespace": owner.namespace,
        "uid": owner.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name}.{tail}", "namespace": owner.namespace},
        "involvedObject": involved,
        "type": "Warning" if one.warning else "Normal",
        "reason": one.reason,
        "message": one.message or one.reason,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": identity,
        "firstTimestamp": moment.replace("+00:00", "Z"),
        "lastTimestamp": moment.replace("+00:00", "Z"),
        "count": 1,
    }
