"""What becomes of an object, told once to all who listen: log, metrics, Events.

Each change of a condition is one line of the log and one count (`controller_svc.transition`), and
one Event for `kubectl describe`.
An Event's name is made from what it tells, so that a controller that starts anew, and tells again
what the one before may not have got to, repeats nothing. That is where each object is now: of what
waited to be posted when a controller died, and was overtaken since, there is no Event.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import structlog

from controller_svc.core import RunStatus, Transition, transitions
from controller_svc.k8s.api import StatusRefused
from controller_svc.k8s.event_post import WARNING, EventPost
from controller_svc.k8s.jobs import Owner
from controller_svc.k8s.objects import ObjectPublication
from controller_svc.transition import transition
from seal.metrics import metrics
from seal.resources import API_VERSION
from seal.yaml_files import Tree

log = structlog.get_logger(__name__)

COMPONENT = "seal-controller"
RECENT_SECONDS = 120.0
"""An end so long before the first look at an object is told again: the controller before may have
died over it. Where something that has not ended is now is always told again."""
STATUS_REFUSED = "StatusRefused"
"""Reason of the Event of an object whose status the API server does not take."""
_HASH_CHARACTERS = 16


class Story:
    """Tells it. One for all objects of a controller's turn."""

    def __init__(self, post: EventPost, *, identity: str) -> None:
        self._events, self._identity = post, identity
        self._known: dict[tuple[str, str, str], str] = {}
        self._refused: set[str] = set()

    def tell(
        self,
        owner: Owner,
        before: RunStatus,
        after: RunStatus,
        *,
        now_seconds: float,
        published: ObjectPublication | None = None,
    ) -> None:
        """Tell what became of an object at a look; at the first one, also what had before.

        `published`: what became of its adapter before this look.
        """
        place = (owner.kind, owner.namespace, owner.name)
        if self._known.get(place) != owner.uid:
            self._known[place] = owner.uid
            nothing = RunStatus(run=before.run, spec_sha256=before.spec_sha256)
            if _is_recent(before.finished_seconds or now_seconds, now_seconds):
                for one in transitions(nothing, before):
                    self._post(owner, one, now_seconds)
            if published is not None and _is_recent(
                published.last_transition_time.timestamp(), now_seconds
            ):
                self._post(owner, _publication(published), now_seconds)
        for one in transitions(before, after):
            self._transition(owner, one, now_seconds)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """An object has gone."""
        uid = self._known.pop((kind, namespace, name), "")
        self._refused.discard(uid)

    def tell_published(self, owner: Owner, shown: ObjectPublication, *, now_seconds: float) -> None:
        """Tell what became of an adapter that is to be served."""
        self._transition(owner, _publication(shown), now_seconds)

    def tell_refused(self, owner: Owner, error: StatusRefused, *, now_seconds: float) -> None:
        """Tell, once for an object and a controller, that its status cannot be written."""
        if owner.uid not in self._refused:
            self._refused.add(owner.uid)
            one = Transition(reason=STATUS_REFUSED, message=str(error), warning=True)
            self._transition(owner, one, now_seconds)

    def _transition(self, owner: Owner, one: Transition, now_seconds: float) -> None:
        transition(metrics, one, kind=owner.kind, name=owner.name, namespace=owner.namespace)
        self._post(owner, one, now_seconds, step=one.step)

    def _post(
        self, owner: Owner, one: Transition, now_seconds: float, *, step: bool = False
    ) -> None:
        """`step`: no other controller can have told it."""
        event = event_of(owner, one, identity=self._identity, now_seconds=now_seconds)
        self._events.hand_in(event, step=step)


def _is_recent(seconds: float, now_seconds: float) -> bool:
    return now_seconds - seconds <= RECENT_SECONDS


def _publication(shown: ObjectPublication) -> Transition:
    return Transition(reason=shown.reason, message=shown.message, warning=shown.ready is False)


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
        "type": WARNING if one.warning else "Normal",
        "reason": one.reason,
        "message": one.message or one.reason,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": identity,
        "firstTimestamp": moment.replace("+00:00", "Z"),
        "lastTimestamp": moment.replace("+00:00", "Z"),
        "count": 1,
    }
