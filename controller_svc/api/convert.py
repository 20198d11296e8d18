"""Adaptations to the wire."""

from __future__ import annotations

from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from controller_svc.adaptations import AdaptationState, Progress, View
from controller_svc.core import Condition
from seal.v1 import adaptation_pb2

STATE_TO_WIRE = MappingProxyType(
    {
        AdaptationState.PENDING: adaptation_pb2.ADAPTATION_STATE_PENDING,
        AdaptationState.RUNNING: adaptation_pb2.ADAPTATION_STATE_RUNNING,
        AdaptationState.PUBLISHED: adaptation_pb2.ADAPTATION_STATE_PUBLISHED,
        AdaptationState.REFUSED: adaptation_pb2.ADAPTATION_STATE_REFUSED,
        AdaptationState.FAILED: adaptation_pb2.ADAPTATION_STATE_FAILED,
        AdaptationState.CANCELLED: adaptation_pb2.ADAPTATION_STATE_CANCELLED,
    }
)
STATE_FROM_WIRE = MappingProxyType({int(wire): state for state, wire in STATE_TO_WIRE.items()})


def adaptation_message(view: View) -> adaptation_pb2.Adaptation:
    """An adaptation as it is."""
    status = view.status
    return adaptation_pb2.Adaptation(
        name=view.name,
        namespace=view.namespace,
        uid=view.uid,
        state=STATE_TO_WIRE[view.state],
        conditions=[_condition(condition) for condition in status.conditions],
        progress=progress_message(view.progress),
        created=timestamp(view.created_seconds),
        started=timestamp(status.started_seconds),
        finished=timestamp(status.finished_seconds),
    )


def progress_message(progress: Progress) -> adaptation_pb2.AdaptationProgress:
    """How far an adaptation is."""
    return adaptation_pb2.AdaptationProgress(
        stage=progress.stage,
        percent=progress.percent,
        eta_seconds=progress.eta_seconds,
        edits_done=progress.edits_done,
        edits_total=progress.edits_total,
        steps_done=progress.steps_done,
        steps_total=progress.steps_total,
        answers_done=progress.answers_done,
        answers_total=progress.answers_total,
    )


def timestamp(seconds: float | None) -> Timestamp | None:
    """Unix time; None for none."""
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _condition(condition: Condition) -> adaptation_pb2.Condition:
    return adaptation_pb2.Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_transition=timestamp(condition.last_transition_seconds),
    )
