"""Models beside the one that learns: which writes its edits, and which judges its answers.

What they are is pinned with the run, as its base model is: numbers of two judges, or of two
writers, are not comparable.
"""

from __future__ import annotations

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.demands import check_padding, check_shapes
from seal.errors import Conflict, InvalidInput, PreconditionFailed
from seal.records import ModelDescription, PreparedRecord
from seal.rpc.convert import policy_message
from seal.runs.improve import check_row_tokens
from seal.settings import LearningSpec, LoraSettings, RunSpec


async def describe_writer(spec: LearningSpec, clients: ServiceClients) -> ModelDescription | None:
    """The model that writes edits for another, as its own trainer has loaded it; None for none.

    Raises:
        InvalidInput: there is no such trainer, it has another model, or cannot train the run's
            policy.

    """
    if not spec.cross_model:
        return None
    field = "spec.edit.model"
    if (writer := clients.writer_trainer) is None:
        raise InvalidInput(
            f"{field}: {spec.writer!r} is to write, and no trainer of it is known",
            field=field,
            remedy="name its trainer beside the services, or leave edit.model out",
        )
    model = await writer.describe(policy_message(spec.writer, None), tuple(_shapes(spec).values()))
    check_shapes(_shapes(spec), model)
    if isinstance(spec, RunSpec):
        check_padding({"improve.optimizer": spec.improve.optimizer}, model)
    if model.max_positions and spec.edit.max_tokens >= model.max_positions:
        raise InvalidInput(
            f"spec.edit.maxTokens: {spec.edit.max_tokens} new tokens do not fit into the "
            f"{model.max_positions} positions of {spec.writer!r}",
            field="spec.edit.maxTokens",
            remedy="give fewer",
        )
    return model.model_copy(update={"lora_refusals": ()})


def _shapes(spec: LearningSpec) -> dict[str, LoraSettings]:
    if isinstance(spec, RunSpec) and spec.learns:
        return {"spec.improve.lora": spec.improve.lora}
    return {}


async def describe_judge(spec: LearningSpec, clients: ServiceClients) -> str:
    """The judge's model, once it has proved that it judges; empty if none is needed.

    Raises:
        InvalidInput: there is none, or its settings are at fault.

    """
    if not spec.needs_judge:
        return ""
    try:
        return await clients.evaluator.describe_judge()
    except PreconditionFailed as error:
        of_reward = spec.evaluation.grader == "judge"
        field = "spec.evaluation.grader" if of_reward else "spec.inner.preselectBy"
        raise InvalidInput(
            f"{field}: {error.message}",
            field=field,
            remedy=error.remedy or "start the evaluator with --judge-base-url and --judge-model",
        ) from error


def check_generator(spec: LearningSpec, clients: ServiceClients) -> None:
    """Refuse a model at an endpoint that is to write where no generator asks it.

    Raises:
        InvalidInput: naming the field.

    """
    if spec.edit.generator is not None and not clients.generator.has_endpoint:
        raise InvalidInput(
            f"spec.edit.generator: {spec.edit.generator.model!r} is to write edits, and no "
            "generator for it is known",
            field="spec.edit.generator",
            remedy="start one with --backend openai and name it beside the services",
        )


async def check_others(
    run: str, spec: LearningSpec, prepared: PreparedRecord, clients: ServiceClients
) -> None:
    """Refuse to go on with another writer, or another judge, than a run was begun with.

    Raises:
        Conflict: naming both.
        InvalidInput: as `describe_writer`, `describe_judge` and `check_generator`.

    """
    check_generator(spec, clients)
    writer = await describe_writer(spec, clients)
    if writer is not None and prepared.writer is not None:
        check_same_model(run, prepared.writer, writer, field="spec.edit.model")
    judge = await describe_judge(spec, clients)
    if judge != prepared.judge:
        raise Conflict(
            f"answers were judged by {prepared.judge!r}, the judge is now {judge!r}",
            field="spec.evaluation.grader",
            remedy="start the evaluator with --judge-model as it was, or begin another run",
        )


def check_same_model(
    run: str, before: ModelDescription, now: ModelDescription, *, field: str
) -> None:
    """Refuse to go on on other weights, or with a trainer that takes shorter rows.

    Raises:
        Conflict: naming both digests, or the longest row that the run was prepared for.

    """
    if before.base_sha256 and now.base_sha256 and before.base_sha256 != now.base_sha256:
        raise Conflict(
            f"{field}: run {run!r} was begun on {before.base_model!r} with weights "
            f"{before.base_sha256}; {now.base_model!r} has now the weights {now.base_sha256}",
            field=field,
            remedy="bring the weights back, or begin another run",
        )
    check_row_tokens(run, before, now.max_row_tokens)
