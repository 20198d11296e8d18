"""What a run asks of the model and of the trainer, and whether they can take it.

All of it is known before the first costly step, so all of it is refused there, by field and remedy:
by the command from the model's configuration, by `prepare` from what the services say of
themselves, and again by a resume, whose services may be others.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.ranks import check_ranks
from seal.errors import InvalidInput
from seal.records import ModelDescription
from seal.remedies import engine_setting
from seal.rpc.convert import policy_message
from seal.settings import AdaptationSpec, LoraSettings, OptimizerSettings, Spec


async def describe_model(spec: Spec, clients: ServiceClients) -> ModelDescription:
    """What the trainer has loaded and takes, which is enough for a run or an adaptation.

    Generator and evaluator are asked too, how large a LoRA they hold.

    Raises:
        InvalidInput: one has another base model, or cannot take the run: a rank, a target, a
            length, a shape that memory has no room for, or requests as large as the workers send.

    """
    shapes = _shapes(spec)
    model = await clients.trainer.describe(policy_message(spec.model, None), tuple(shapes.values()))
    check_settings(spec, model)
    check_shapes(shapes, model)
    await check_ranks(spec, clients)
    if 0 < model.max_message_bytes < clients.max_request_bytes:
        raise InvalidInput(
            f"the trainer takes requests of {model.max_message_bytes} bytes, the workers send up "
            f"to {clients.max_request_bytes}: work would be lost that is done",
            field="max_message_bytes",
            remedy=f"start the services with --max-message-bytes {clients.max_request_bytes}",
        )
    return model.model_copy(update={"lora_refusals": ()})


def _shapes(spec: Spec) -> dict[str, LoraSettings]:
    """Adapters that are trained, by their fields."""
    shapes = {"spec.inner.lora": spec.inner.lora}
    if isinstance(spec, AdaptationSpec):
        return shapes | {"spec.adapter.lora": spec.adapter.lora}
    trains_policy = spec.learns and not spec.cross_model  # else its own trainer has the policy
    return shapes | {"spec.improve.lora": spec.improve.lora} if trains_policy else shapes


def check_shapes(shapes: Mapping[str, LoraSettings], model: ModelDescription) -> None:
    """Refuse adapters, by their fields, that the model or its trainer cannot take.

    Raises:
        InvalidInput: naming the field.

    """
    for field, lora in shapes.items():
        _check_lora(field, lora, model)
    for field, refusal in zip(shapes, model.lora_refusals, strict=False):
        if refusal:
            raise InvalidInput(f"{field}: {refusal}", field=field)


def check_adapters(spec: Spec, model: ModelDescription) -> None:
    """Refuse ranks and targets that the model or the trainer can never take.

    Raises:
        InvalidInput: naming the field.

    """
    for field, lora in _shapes(spec).items():
        _check_lora(field, lora, model)


def check_settings(spec: Spec, model: ModelDescription) -> None:
    """Refuse what the model or the trainer can never take.

    Raises:
        InvalidInput: naming the field.

    """
    check_adapters(spec, model)
    check_padding(_optimizers(spec), model)
    if isinstance(spec, AdaptationSpec):
        check_passage_tokens(spec.passages.max_tokens, model.max_positions)
    written = {"evaluation": spec.evaluation.max_tokens}
    if not spec.cross_model:
        written["edit"] = spec.edit.max_tokens
    for field, tokens in written.items():
        if model.max_positions and tokens >= model.max_positions:
            raise InvalidInput(
                f"spec.{field}.maxTokens: {tokens} new tokens do not fit into the model's "
                f"{model.max_positions} positions",
                field=f"spec.{field}.maxTokens",
                remedy="give fewer",
            )


def check_passage_tokens(tokens: int, max_positions: int) -> None:
    """Refuse passages that are longer than the model; 0 positions are a model that does not say.

    Raises:
        InvalidInput: naming the field.

    """
    if 0 < max_positions < tokens:
        raise InvalidInput(
            f"passages of {tokens} tokens do not fit into the model's {max_positions} positions",
            field="spec.passages.maxTokens",
            remedy=f"give {max_positions} or less, so that there is room for what is asked of them",
        )


def check_padding(
    optimizers: Mapping[str, OptimizerSettings | None], model: ModelDescription
) -> None:
    """Refuse rows, filled up as the optimisers say, that are longer than the trainer takes.

    Raises:
        InvalidInput: naming the field.

    """
    for field, optimizer in optimizers.items():
        tokens = optimizer.pad_to_tokens if optimizer else 0
        if tokens > model.max_row_tokens:
            raise InvalidInput(
                f"spec.{field}.padToTokens: rows of {tokens} tokens are longer than the trainer "
                f"takes, {model.max_row_tokens}",
                field=f"spec.{field}.padToTokens",
                remedy=f"give {model.max_row_tokens} or less, or raise "
                + engine_setting("max_row_tokens"),
            )


def _optimizers(spec: Spec) -> dict[str, OptimizerSettings | None]:
    """How adapters are trained, by the fields that say it."""
    inner = spec.inner.optimizer
    if isinstance(spec, AdaptationSpec):
        return {"inner.optimizer": inner, "adapter.optimizer": spec.adapter.optimizer}
    own = {} if spec.cross_model else {"improve.optimizer": spec.improve.optimizer}
    return {"inner.optimizer": inner, **own, "validation.passage": spec.validation.passage}


def _check_lora(field: str, lora: LoraSettings, model: ModelDescription) -> None:
    if lora.rank > model.max_rank:
        raise InvalidInput(
            f"{field}.rank: {lora.rank} is larger than the trainer takes, {model.max_rank}",
            field=f"{field}.rank",
            remedy=f"give {model.max_rank} or less, or raise {engine_setting('max_rank')}",
        )
    for target in lora.target_modules:
        if target not in model.target_modules:
            near = difflib.get_close_matches(target, model.target_modules, n=1)
            raise InvalidInput(
                f"{field}.targetModules: base model {model.base_model!r} has no layer {target!r}",
                field=f"{field}.targetModules",
                remedy=f"did you mean {near[0]}?"
                if near
                else "choose from " + ", ".join(model.target_modules),
            )
