"""What a manifest may say, the services take: a run never learns of a bound after its rollout."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from annotated_types import Ge, Le, MaxLen
from service_harness import evaluation_request, generation_request, training_request

from evaluator_svc.plan import parse_evaluation
from generator_svc.plan import parse_generation
from seal.rpc.convert import lora_message, optimizer_message
from seal.settings import (
    EditSettings,
    EvaluationSettings,
    FileSettings,
    ImproveSettings,
    LoraSettings,
    OptimizerSettings,
)
from seal.v1 import generator_pb2
from trainer_svc.plan import parse_training


def bound(model: type[FileSettings], field: str, kind: type[Ge | Le | MaxLen]) -> float:
    """A bound of a settings field."""
    found: Iterable[object] = model.model_fields[field].metadata
    (one,) = (constraint for constraint in found if isinstance(constraint, kind))
    return float(one.max_length if isinstance(one, MaxLen) else getattr(one, kind.__name__.lower()))


def test_the_largest_trainings_of_a_manifest_are_taken() -> None:
    targets = int(bound(LoraSettings, "target_modules", MaxLen))
    lora = LoraSettings(
        rank=int(bound(LoraSettings, "rank", Le)),
        target_modules=tuple(f"layer_{number}" for number in range(targets)),
    )
    optimizer = OptimizerSettings(
        epochs=int(bound(OptimizerSettings, "epochs", Le)),
        batch_size=int(bound(OptimizerSettings, "batch_size", Le)),
    )
    request = training_request(
        lora=lora_message(lora),
        optimizer=optimizer_message(optimizer),
        checkpoint_every_seconds=bound(ImproveSettings, "checkpoint_every_seconds", Le),
    )
    plan = parse_training(request)
    assert (plan.lora, plan.optimizer) == (lora, optimizer)


@pytest.mark.parametrize("end", [Ge, Le])
def test_every_sampling_of_a_manifest_is_taken(end: type[Ge | Le]) -> None:
    sampling = generator_pb2.Sampling(
        temperature=bound(EditSettings, "temperature", end),
        top_p=bound(EditSettings, "top_p", end),
        max_tokens=int(bound(EditSettings, "max_tokens", end)),
    )
    plan = parse_generation(generation_request(sampling=sampling))
    assert plan.sampled_as.max_tokens == sampling.max_tokens


def test_the_longest_answers_of_a_manifest_are_taken() -> None:
    tokens = int(bound(EvaluationSettings, "max_tokens", Le))
    request = evaluation_request(max_tokens=tokens)
    assert parse_evaluation(request).max_tokens == tokens
