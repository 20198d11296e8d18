"""From the messages of AdaptationService to the client's dataclasses; back: `to_wire`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from seal.client import events
from seal.client.evaluations import Difference, Evaluation, Interval, Score, Verdict
from seal.client.to_wire import SCALAR_GATE, SCALAR_OPTIONS, STATE_TO_WIRE
from seal.client.types import (
    Adaptation,
    BaseModel,
    Condition,
    Counts,
    Gate,
    Options,
    Progress,
    Serving,
    StageCost,
    State,
    StoredFile,
    Submission,
)
from seal.errors import Internal
from seal.records import AdapterReference
from seal.settings import LoraSettings, OptimizerSettings
from seal.v1 import adaptation_pb2, common_pb2, trainer_pb2

Value = TypeVar("Value")

_STATES: Mapping[int, State] = MappingProxyType(
    {wire: state for state, wire in STATE_TO_WIRE.items()}
)


def adaptation(message: adaptation_pb2.Adaptation) -> Adaptation:
    """An adaptation as the server tells it.

    Raises Internal for a state that this version does not know.
    """
    return Adaptation(
        name=message.name,
        namespace=message.namespace,
        uid=message.uid,
        state=_state(message.state),
        conditions=tuple(_condition(one) for one in message.conditions),
        progress=progress(message.progress),
        counts=_counts(message.counts),
        adapter=_adapter(message.adapter) if message.HasField("adapter") else None,
        passages_adapter=_adapter(message.passages_adapter)
        if message.HasField("passages_adapter")
        else None,
        evaluation=evaluation(message.evaluation) if message.HasField("evaluation") else None,
        gate=_verdict(message.gate) if message.HasField("gate") else None,
        costs=tuple(_cost(one) for one in message.costs),
        base=BaseModel(name=message.base.base_model, sha256=message.base.base_sha256)
        if message.HasField("base")
        else None,
        sequence=message.sequence,
        created_seconds=_seconds(message.created, message.HasField("created")),
        started_seconds=_seconds(message.started, message.HasField("started")),
        finished_seconds=_seconds(message.finished, message.HasField("finished")),
        options=_options(message.options),
        serving=_serving(message.serving) if message.HasField("serving") else None,
    )


def submission(message: adaptation_pb2.SubmitAdaptationResponse) -> Submission:
    """An accepted adaptation."""
    return Submission(adaptation=adaptation(message.adaptation), created=message.created)


def event(message: adaptation_pb2.AdaptationEvent) -> events.Event | None:
    """What happened; None for a kind of event that a newer server tells."""
    kind = message.WhichOneof("event")
    if kind not in _EVENTS:
        return None
    return events.Event(
        sequence=message.sequence,
        time_seconds=_seconds(message.time, message.HasField("time")),
        what=_EVENTS[kind](message),
    )


def stored_file(message: common_pb2.FileRef) -> StoredFile:
    """A file of the store."""
    return StoredFile(path=message.path, sha256=message.sha256)


def evaluation(message: adaptation_pb2.AdaptationEvaluation) -> Evaluation:
    """What an adapter is worth."""
    return Evaluation(
        questions=message.questions,
        self_made=message.self_made,
        scores=tuple(_score(one) for one in message.scores),
        differences=tuple(
            Difference(
                model=one.model,
                against=one.against,
                measure=one.measure,
                value=_interval(one.value),
            )
            for one in message.differences
        ),
        retained_questions=message.retained_questions,
        retained=tuple(_score(one) for one in message.retained),
        retained_change=_interval(message.retained_change)
        if message.HasField("retained_change")
        else None,
    )


def progress(message: adaptation_pb2.AdaptationProgress) -> Progress:
    """How far it is."""
    return Progress(
        stage=message.stage,
        percent=message.percent,
        eta_seconds=_set(message.eta_seconds, message.HasField("eta_seconds")),
        edits_done=message.edits_done,
        edits_total=message.edits_total,
        steps_done=message.steps_done,
        steps_total=message.steps_total,
        answers_done=message.answers_done,
        answers_total=message.answers_total,
        waiting=message.waiting,
    )


def _counts(message: adaptation_pb2.AdaptationCounts) -> Counts:
    return Counts(
        documents=message.documents,
        passages=message.passages,
        passages_too_long=message.passages_too_long,
        reward_questions=message.reward_questions,
        held_out_questions=message.held_out_questions,
        self_made=message.self_made,
        edits=dict(message.edits),
        rows=dict(message.rows),
        questions_dropped=message.questions_dropped,
        examples_left_out=message.examples_left_out,
    )


def _options(message: adaptation_pb2.AdaptationOptions) -> Options:
    return Options(
        policy=_adapter(message.policy) if message.HasField("policy") else None,
        lora=_lora(message.lora) if message.HasField("lora") else None,
        optimizer=_optimizer(message.optimizer) if message.HasField("optimizer") else None,
        gate=Gate(**_given(message.gate, SCALAR_GATE)),
        **_given(message, SCALAR_OPTIONS),
    )


def _given(message: Message, names: tuple[str, ...]) -> dict[str, Any]:
    """Optional fields that are set."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _lora(message: trainer_pb2.LoraConfig) -> LoraSettings:
    return LoraSettings(
        rank=message.rank, alpha=message.alpha, target_modules=tuple(message.target_modules)
    )


def _optimizer(message: trainer_pb2.OptimizerConfig) -> OptimizerSettings:
    return OptimizerSettings.model_validate(
        {name: getattr(message, name) for name in OptimizerSettings.model_fields}
    )


def _state(value: int) -> State:
    state = _STATES.get(value)
    if state is None:
        raise Internal(
            f"the server tells a state that this client does not know: {value}",
            remedy="use a client and a server of the same version",
        )
    return state


def _condition(message: adaptation_pb2.Condition) -> Condition:
    return Condition(
        type=message.type,
        status=message.status,
        reason=message.reason,
        message=message.message,
        changed_seconds=_seconds(message.last_transition, message.HasField("last_transition")),
    )


def _serving(message: adaptation_pb2.Serving) -> Serving:
    return Serving(
        kind=message.kind,
        service=message.service,
        adapter_name=message.adapter_name,
        adapter_uri=message.adapter_uri,
        ready=_set(message.ready, message.HasField("ready")),
        reason=message.reason,
        message=message.message,
        changed_seconds=_seconds(message.last_transition, message.HasField("last_transition")),
    )


def _adapter(message: common_pb2.AdapterRef) -> AdapterReference:
    return AdapterReference(path=message.path, sha256=message.sha256)


def _interval(message: adaptation_pb2.Interval) -> Interval:
    return Interval(
        mean=message.mean,
        low=_set(message.low, message.HasField("low")),
        high=_set(message.high, message.HasField("high")),
        passages=message.passages,
    )


def _score(message: adaptation_pb2.Score) -> Score:
    return Score(model=message.model, measure=message.measure, value=_interval(message.value))


def _verdict(message: adaptation_pb2.GateVerdict) -> Verdict:
    return Verdict(passed=message.passed, reason=message.reason, message=message.message)


def _cost(message: adaptation_pb2.StageCost) -> StageCost:
    return StageCost(
        stage=message.stage,
        tokens=dict(message.tokens),
        seconds=message.seconds,
        engine_seconds=message.engine_seconds,
    )


def _rewarded(message: adaptation_pb2.AdaptationRewarded) -> events.Rewarded:
    return events.Rewarded(
        edits=dict(message.edits),
        baseline=_set(message.baseline, message.HasField("baseline")),
        reward=_set(message.reward, message.HasField("reward")),
        best=_set(message.best, message.HasField("best")),
    )


def _trained(message: adaptation_pb2.AdaptationTrained) -> events.Trained:
    return events.Trained(
        adapter=_adapter(message.adapter) if message.HasField("adapter") else None,
        rows=dict(message.rows),
        evaluation=evaluation(message.evaluation) if message.HasField("evaluation") else None,
    )


_EVENTS: Mapping[str | None, Callable[[adaptation_pb2.AdaptationEvent], events.What]] = (
    MappingProxyType(
        {
            "accepted": lambda one: events.Accepted(documents=one.accepted.documents),
            "prepared": lambda one: events.Prepared(counts=_counts(one.prepared.counts)),
            "questioned": lambda one: events.Questioned(
                written=one.questioned.written,
                kept=one.questioned.kept,
                held_out=one.questioned.held_out,
            ),
            "rewarded": lambda one: _rewarded(one.rewarded),
            "trained": lambda one: _trained(one.trained),
            "judged": lambda one: events.Judged(verdict=_verdict(one.judged)),
            "ended": lambda one: events.Ended(
                state=_state(one.ended.state), message=one.ended.message
            ),
            "progress": lambda one: events.Advanced(progress=progress(one.progress)),
        }
    )
)


def _seconds(time: Timestamp, given: bool) -> float | None:
    return time.seconds + time.nanos / 1e9 if given else None


def _set(value: Value, given: bool) -> Value | None:
    return value if given else None
