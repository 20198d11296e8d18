"""Between the wire and Python: protobuf messages on one side, frozen records on the other.

Services and workers both use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import cast, get_args

from seal.bases import BaseReference
from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.prompts import Message, Role
from seal.records import (
    AdapterReference,
    AnswerRecord,
    EvaluationRecord,
    ModelDescription,
    PartRecord,
    TrainingRecord,
)
from seal.rpc import validation
from seal.settings import GraderName, LoraSettings, OptimizerSettings
from seal.v1 import common_pb2, evaluator_pb2, generator_pb2, trainer_pb2

OUTCOME_TO_WIRE = MappingProxyType(
    {
        Outcome.OK: common_pb2.OUTCOME_OK,
        Outcome.INVALID: common_pb2.OUTCOME_INVALID,
        Outcome.DIVERGED: common_pb2.OUTCOME_DIVERGED,
        Outcome.UNGRADED: common_pb2.OUTCOME_UNGRADED,
        Outcome.CANCELLED: common_pb2.OUTCOME_CANCELLED,
        Outcome.TOO_LONG: common_pb2.OUTCOME_TOO_LONG,
        Outcome.INERT: common_pb2.OUTCOME_INERT,
        Outcome.REFUSED: common_pb2.OUTCOME_REFUSED,
    }
)
OUTCOME_FROM_WIRE = MappingProxyType({wire: outcome for outcome, wire in OUTCOME_TO_WIRE.items()})
GRADER_TO_WIRE: Mapping[GraderName, evaluator_pb2.Grader.ValueType] = MappingProxyType(
    {
        "exact": evaluator_pb2.GRADER_EXACT,
        "contains": evaluator_pb2.GRADER_CONTAINS,
        "f1": evaluator_pb2.GRADER_F1,
        "logprob": evaluator_pb2.GRADER_LOGPROB,
        "judge": evaluator_pb2.GRADER_JUDGE,
        "grid": evaluator_pb2.GRADER_GRID,
    }
)
GRADER_FROM_WIRE = MappingProxyType({wire: grader for grader, wire in GRADER_TO_WIRE.items()})


def adapter_reference(message: common_pb2.AdapterRef, *, field: str) -> AdapterReference:
    """Reference from the wire.

    Raises InvalidInput naming `field` for a missing path or a digest that is none.
    """
    path = validation.text(
        message.path,
        field=f"{field}.path",
        max_characters=4096,
        remedy="give the reference as the trainer returned it",
    )
    return AdapterReference(
        path=path, sha256=validation.sha256(message.sha256, field=f"{field}.sha256")
    )


def adapter_message(reference: AdapterReference) -> common_pb2.AdapterRef:
    """Reference to the wire."""
    return common_pb2.AdapterRef(path=reference.path, sha256=reference.sha256)


def policy_message(
    base_model: str, adapter: AdapterReference | None, *, base_sha256: str = ""
) -> common_pb2.PolicyRef:
    """Policy to the wire; without an adapter it is the base model alone."""
    return common_pb2.PolicyRef(
        base_model=base_model,
        base_sha256=base_sha256,
        adapter=None if adapter is None else adapter_message(adapter),
    )


def base_reference(policy: common_pb2.PolicyRef) -> BaseReference:
    """The base model of a policy from the wire.

    Raises InvalidInput naming the field for a missing name or a digest that is none.
    """
    name = validation.identifier(
        policy.base_model, field="policy.base_model", remedy="name the base model of the run"
    )
    if policy.base_sha256:
        validation.sha256(policy.base_sha256, field="policy.base_sha256")
    return BaseReference(name, policy.base_sha256)


def chat_message_list(messages: Iterable[Message]) -> list[common_pb2.ChatMessage]:
    """Turns of a chat to the wire."""
    return [
        common_pb2.ChatMessage(role=message.role, content=message.content) for message in messages
    ]


def chat_messages(
    messages: Iterable[common_pb2.ChatMessage], *, field: str = "messages"
) -> tuple[Message, ...]:
    """Turns of a chat from the wire. Raises InvalidInput naming the one whose role is none."""
    return tuple(
        Message(
            role=cast(
                Role,
                validation.one_of(message.role, get_args(Role), field=f"{field}[{index}].role"),
            ),
            content=message.content,
        )
        for index, message in enumerate(messages)
    )


def part_prompt_record(message: generator_pb2.PartPrompt) -> PartPromptRecord:
    """How a part was asked for, from the wire."""
    return PartPromptRecord(
        prompt=message.prompt, messages=chat_messages(message.messages), start=message.start
    )


def part_record(message: generator_pb2.EditPart) -> PartRecord:
    """What was written for a part, from the wire.

    The last digits of its log-probability follow the company that it was sampled in: left out.
    """
    return PartRecord(
        text=message.text,
        tokens=message.tokens,
        truncated=message.truncated,
        logprob=round(message.logprob, 4) if message.HasField("logprob") else None,
    )


def lora_message(settings: LoraSettings) -> trainer_pb2.LoraConfig:
    """Shape of an adapter to the wire."""
    return trainer_pb2.LoraConfig(
        rank=settings.rank, alpha=settings.alpha, target_modules=settings.target_modules
    )


def optimizer_message(settings: OptimizerSettings) -> trainer_pb2.OptimizerConfig:
    """How an adapter is trained to the wire."""
    return trainer_pb2.OptimizerConfig(
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        schedule=settings.schedule,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        pad_to_tokens=settings.pad_to_tokens,
    )


def lora_settings(message: trainer_pb2.LoraConfig, *, field: str) -> LoraSettings:
    """Shape of an adapter from the wire. Raises InvalidInput naming the field below `field`."""
    names = tuple(message.target_modules)
    for place, name in enumerate(names):
        validation.identifier(
            name,
            field=f"{field}.target_modules[{place}]",
            remedy='name a linear layer, for example "q_proj"',
        )
    validation.unique(names, field=field + ".target_modules[{index}]")
    return validation.settings(
        LoraSettings, field=field, rank=message.rank, alpha=message.alpha, target_modules=names
    )


def optimizer_settings(message: trainer_pb2.OptimizerConfig, *, field: str) -> OptimizerSettings:
    """How an adapter is trained, from the wire. Raises InvalidInput as `lora_settings`."""
    return validation.settings(
        OptimizerSettings,
        field=field,
        learning_rate=message.learning_rate,
        epochs=message.epochs,
        batch_size=message.batch_size,
        schedule=message.schedule,
        warmup_ratio=message.warmup_ratio,
        weight_decay=message.weight_decay,
        max_grad_norm=message.max_grad_norm,
        pad_to_tokens=message.pad_to_tokens,
    )


def training_message(record: TrainingRecord) -> trainer_pb2.TrainingResult:
    """Result of a training to the wire."""
    return trainer_pb2.TrainingResult(
        outcome=OUTCOME_TO_WIRE[record.outcome],
        adapter=None if record.adapter is None else adapter_message(record.adapter),
        steps=record.steps,
        final_loss=record.final_loss,
        tokens=record.tokens,
        seconds=record.seconds,
        engine_seconds=record.engine_seconds,
    )


def training_record(message: trainer_pb2.TrainingResult) -> TrainingRecord:
    """Result of a training from the wire."""
    return TrainingRecord(
        outcome=OUTCOME_FROM_WIRE[message.outcome],
        adapter=adapter_reference(message.adapter, field="result.adapter")
        if message.HasField("adapter")
        else None,
        steps=message.steps,
        final_loss=message.final_loss,
        tokens=message.tokens,
        seconds=message.seconds,
        engine_seconds=message.engine_seconds,
    )


def description_message(record: ModelDescription) -> trainer_pb2.DescribeModelResponse:
    """What a trainer has loaded to the wire."""
    return trainer_pb2.DescribeModelResponse(**record.model_dump())


def description_record(message: trainer_pb2.DescribeModelResponse) -> ModelDescription:
    """What a trainer has loaded from the wire."""
    return ModelDescription(
        base_model=message.base_model,
        base_sha256=message.base_sha256,
        max_positions=message.max_positions,
        max_row_tokens=message.max_row_tokens,
        max_rank=message.max_rank,
        target_modules=tuple(message.target_modules),
        dtype=message.dtype,
        device=message.device,
        max_message_bytes=message.max_message_bytes,
        lora_refusals=tuple(message.lora_refusals),
    )


def evaluation_record(
    request: evaluator_pb2.EvaluateRequest, result: evaluator_pb2.EvaluationResult
) -> EvaluationRecord:
    """Result of an evaluation from the wire, with the questions and gold answers of its request."""
    outcome = OUTCOME_FROM_WIRE[result.outcome]
    return EvaluationRecord(
        outcome=outcome,
        reward=result.reward if outcome is Outcome.OK else None,
        answers=tuple(
            _answer_record(query, answer)
            for query, answer in zip(request.queries, result.answers, strict=True)
        ),
        ungraded=result.ungraded,
        max_logit_difference=result.max_logit_difference,
        tokens=result.tokens,
        engine_seconds=result.engine_seconds,
    )


def _answer_record(query: evaluator_pb2.Query, answer: evaluator_pb2.GradedAnswer) -> AnswerRecord:
    outcome = OUTCOME_FROM_WIRE[answer.outcome]
    return AnswerRecord(
        query_id=answer.query_id,
        question=query.question,
        golds=tuple(query.answers),
        answer=answer.answer,
        outcome=outcome,
        score=answer.score if outcome is Outcome.OK else None,
        measures={name: answer.measures[name] for name in sorted(answer.measures)},
        logprob=answer.logprob,
    )


def finite_or_zero(value: float) -> float:
    """`value`, or 0 where it is NaN or Inf.

    Only for numbers that the outcome beside them declares invalid.
    """
    return value if math.isfinite(value) else 0.0
