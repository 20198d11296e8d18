"""Adaptations and their events to the wire."""

from __future__ import annotations

import time
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from controller_svc.adaptations import Serving, View
from controller_svc.core import AdaptationState, Condition, RunStatus
from controller_svc.core.events import (
    Accepted,
    Ended,
    Event,
    Judged,
    Prepared,
    Questioned,
    Rewarded,
)
from seal.records import (
    AdaptationCounts,
    AdaptationEvaluation,
    AdapterReference,
    GateVerdict,
    Interval,
    ModelScore,
)
from seal.rpc.convert import adapter_message, lora_message, optimizer_message
from seal.settings import AdaptationSpec
from seal.v1 import adaptation_pb2, common_pb2

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
    adapted = status.adaptation
    result = adapted.result if adapted is not None else None
    return adaptation_pb2.Adaptation(
        name=view.name,
        namespace=view.namespace,
        uid=view.uid,
        state=STATE_TO_WIRE[view.state],
        conditions=[_condition(condition) for condition in status.conditions],
        progress=_progress(view),
        counts=_status_counts(status),
        adapter=_adapter(result.adapter if result else None),
        passages_adapter=_adapter(result.passages_adapter if result else None),
        evaluation=_evaluation(result.evaluation) if result else None,
        gate=_verdict(result.gate) if result else None,
        costs=[
            adaptation_pb2.StageCost(
                stage=str(done.stage),
                tokens=done.tokens,
                seconds=done.seconds,
                engine_seconds=sum(done.engine_seconds.values()),
            )
            for done in (adapted.stages if adapted is not None else ())
        ],
        base=common_pb2.PolicyRef(base_model=view.spec.model, base_sha256=view.base_sha256),
        sequence=len(view.events),
        created=timestamp(view.created_seconds),
        started=timestamp(status.started_seconds),
        finished=timestamp(status.finished_seconds),
        options=options_message(view.spec),
        serving=_serving(view.serving) if view.serving else None,
    )


def event_message(event: Event) -> adaptation_pb2.AdaptationEvent:
    """Something that happened."""
    message = adaptation_pb2.AdaptationEvent(
        sequence=event.sequence, time=timestamp(event.time_seconds)
    )
    match event.what:
        case Accepted() as accepted:
            message.accepted.documents = accepted.documents
        case Prepared() as prepared:
            message.prepared.counts.CopyFrom(_counts(prepared.counts, self_made=prepared.self_made))
        case Questioned() as made:
            message.questioned.CopyFrom(
                adaptation_pb2.AdaptationQuestioned(
                    written=made.written, kept=made.kept, held_out=made.held_out
                )
            )
        case Rewarded() as rewarded:
            message.rewarded.CopyFrom(
                adaptation_pb2.AdaptationRewarded(
                    edits=rewarded.edits,
                    baseline=rewarded.baseline,
                    reward=rewarded.reward,
                    best=rewarded.best,
                )
            )
        case Judged() as judged:
            message.judged.CopyFrom(_verdict(judged.verdict))
        case Ended() as ended:
            message.ended.state, message.ended.message = STATE_TO_WIRE[ended.state], ended.message
        case trained:
            message.trained.CopyFrom(
                adaptation_pb2.AdaptationTrained(
                    adapter=_adapter(trained.adapter),
                    rows={str(kind): number for kind, number in trained.rows.items()},
                    evaluation=_evaluation(trained.evaluation),
                )
            )
    return message


def progress_event(view: View) -> adaptation_pb2.AdaptationEvent:
    """How far an adaptation is, after its last event."""
    return adaptation_pb2.AdaptationEvent(
        sequence=len(view.events), time=timestamp(time.time()), progress=_progress(view)
    )


def options_message(spec: AdaptationSpec) -> adaptation_pb2.AdaptationOptions:
    """How an adaptation adapts, nothing left out."""
    return adaptation_pb2.AdaptationOptions(
        seed=spec.seed,
        policy=_adapter(spec.policy),
        candidates=spec.edit.k,
        passage_tokens=spec.passages.max_tokens,
        lora=lora_message(spec.adapter.lora),
        optimizer=optimizer_message(spec.adapter.optimizer),
        replay_rows=spec.adapter.replay_rows,
        held_out_share=spec.questions.held_out_share,
        gate=adaptation_pb2.GateOptions(
            min_gain=spec.gate.min_gain,
            confident=spec.gate.confident,
            max_regression=spec.gate.max_regression,
        ),
    )


def timestamp(seconds: float | None) -> Timestamp | None:
    """Unix time; None for none."""
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _progress(view: View) -> adaptation_pb2.AdaptationProgress:
    progress = view.progress
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
        waiting=view.waiting,
    )


def _condition(condition: Condition) -> adaptation_pb2.Condition:
    return adaptation_pb2.Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_transition=timestamp(condition.last_transition_seconds),
    )


def _serving(serving: Serving) -> adaptation_pb2.Serving:
    return adaptation_pb2.Serving(
        kind=serving.kind,
        service=serving.service,
        adapter_name=serving.adapter_name,
        adapter_uri=serving.adapter_uri,
        ready=serving.ready,
        reason=serving.reason,
        message=serving.message,
        last_transition=timestamp(serving.last_transition_seconds),
    )


def _status_counts(status: RunStatus) -> adaptation_pb2.AdaptationCounts | None:
    """What is known so far, of all stages."""
    if (adapted := status.adaptation) is None:
        return None
    counts = _counts(adapted.counts, self_made=adapted.self_made)
    counts.documents = adapted.documents
    counts.edits.update(adapted.edits)
    if (result := adapted.result) is not None:
        counts.rows.update({str(kind): number for kind, number in result.rows.items()})
        counts.examples_left_out = result.left_out
    return counts


def _counts(counts: AdaptationCounts, *, self_made: bool) -> adaptation_pb2.AdaptationCounts:
    return adaptation_pb2.AdaptationCounts(
        documents=counts.documents,
        passages=counts.passages,
        passages_too_long=counts.passages_too_long,
        reward_questions=counts.reward_questions,
        held_out_questions=counts.held_out_questions,
        questions_dropped=counts.questions_dropped,
        self_made=self_made,
    )


def _evaluation(evaluation: AdaptationEvaluation) -> adaptation_pb2.AdaptationEvaluation:
    return adaptation_pb2.AdaptationEvaluation(
        questions=evaluation.questions,
        self_made=evaluation.self_made,
        scores=[_score(score) for score in evaluation.scores],
        differences=[
            adaptation_pb2.Difference(
                model=one.model,
                against=one.against,
                measure=one.measure,
                value=_interval(one.value),
            )
            for one in evaluation.differences
        ],
        retained_questions=evaluation.retained_questions,
        retained=[_score(score) for score in evaluation.retained],
        retained_change=_interval(evaluation.retained_change),
    )


def _score(score: ModelScore) -> adaptation_pb2.Score:
    return adaptation_pb2.Score(
        model=score.model, measure=score.measure, value=_interval(score.value)
    )


def _interval(interval: Interval | None) -> adaptation_pb2.Interval | None:
    """A mean with its interval; None for a missing score, which is no 0."""
    if interval is None:
        return None
    return adaptation_pb2.Interval(
        mean=interval.mean, low=interval.low, high=interval.high, passages=interval.n
    )


def _verdict(verdict: GateVerdict) -> adaptation_pb2.GateVerdict:
    return adaptation_pb2.GateVerdict(
        passed=verdict.passed, reason=verdict.reason or "", message=verdict.message
    )


def _adapter(reference: AdapterReference | None) -> common_pb2.AdapterRef | None:
    return None if reference is None else adapter_message(reference)
