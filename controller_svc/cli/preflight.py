"""What can be refused before anything costly: settings against the machine, data, then the model.

Cheap things first: numbers that contradict each other, then files, then the model's configuration,
which needs no weights. Whoever calls this has not loaded anything yet.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from controller_svc.cli.machine import engine_missing
from controller_svc.worker.demands import check_adapters
from controller_svc.worker.demands import check_settings as check_against_model
from seal.domains import get_domain
from seal.embedded import EMBEDDED_MODELS
from seal.endpoint_keys import read_key
from seal.errors import InvalidInput
from seal.files import given_path
from seal.judge_options import JudgeVariables
from seal.model_files import check_config
from seal.records import ModelDescription
from seal.settings import ALL_PROJECTIONS, EngineSettings, RunSpec

if TYPE_CHECKING:
    from seal.engine.shape import ModelShape

CORPUS = "corpus://"
"""Begins the name of a part of the embedded corpus."""


def check_settings(spec: RunSpec, engine: EngineSettings) -> None:
    """Refuse what the engine would refuse of every request of the run.

    Raises:
        InvalidInput: no slots, a rank, a target or a pair of data files, by field.
    """
    if engine.slots == 0:
        raise InvalidInput(
            "slots: every run trains adapters, and an engine of 0 slots trains nothing",
            field="slots",
            remedy="give at least --engine slots=1, or leave it out",
        )
    check_adapters(spec, _described(spec, engine, positions=0, targets=ALL_PROJECTIONS))
    _check_data(spec)


def check_endpoints(spec: RunSpec) -> None:
    """Refuse a run whose judge, or whose model at an endpoint, cannot be asked from here.

    Raises:
        InvalidInput: no judge is named in the environment, a variable or the endpoint is wrong, or
            a key cannot be read, by field.
    """
    judge = JudgeVariables.read().judge
    if spec.needs_judge and judge is None:
        of_reward = spec.evaluation.grader == "judge"
        field = "spec.evaluation.grader" if of_reward else "spec.inner.preselectBy"
        raise InvalidInput(
            f"{field}: a model is to judge, and none is named",
            field=field,
            remedy="set SEAL_JUDGE_BASE_URL and SEAL_JUDGE_MODEL, and SEAL_JUDGE_API_KEY_FILE for "
            "a key",
        )
    asked = {
        "judge_api_key_file": judge.endpoint if spec.needs_judge and judge else None,
        "spec.edit.generator.apiKeyFile": spec.edit.generator,
    }
    for field, endpoint in asked.items():
        if endpoint is not None and endpoint.api_key_file:
            read_key(endpoint.api_key_file, field=field)
        if endpoint is not None and importlib.util.find_spec("openai") is None:
            raise InvalidInput(
                f"{field.removesuffix('.apiKeyFile')}: a model at an endpoint needs the package "
                "openai",
                field=field.removesuffix(".apiKeyFile"),
                remedy="pip install 'seal-kubernetes[openai]'",
            )


def _check_data(spec: RunSpec) -> None:
    """A run learns from a corpus and measures on the same kind of passages."""
    own_train = not spec.data.train.startswith(CORPUS)
    own_validation = not spec.data.validation.startswith(CORPUS)
    if not spec.learns or own_train == own_validation:
        return
    given, missing = ("validation", "train") if own_validation else ("train", "validation")
    option = {"train": "--dataset", "validation": "--validation"}[missing]
    raise InvalidInput(
        f"spec.data.{given} is a file of yours, but there is no spec.data.{missing}: the embedded "
        "corpus would be taken, which has nothing to do with it",
        field=f"spec.data.{missing}",
        remedy=f"add {option} FILE"
        + (", or measure the base model alone with rounds: 0" if own_validation else ""),
    )


def data_note(spec: RunSpec) -> str:
    """What a run without data of its own takes; empty if it has some."""
    if not spec.data.validation.startswith(CORPUS):
        return ""
    one = get_domain(spec.domain).words.context
    return (
        f"no data is given: it takes the embedded corpus of fictional {one}s "
        f"({spec.data.train} to learn from, {spec.data.validation} to measure on)"
    )


def model_shape(model: str, directory: Path) -> ModelShape:
    """What the configuration of a model shows.

    Raises:
        InvalidInput: the engine does not take such a model.
        PreconditionFailed: the engine is not installed.
    """
    try:
        from seal.engine.shape import read_shape
    except ImportError as error:
        raise engine_missing(error) from error
    return read_shape(directory, name=model)


def check_architecture(model: str) -> None:
    """Refuse a directory by its configuration alone, before what else it lacks.

    Who completes a directory file by file is not to learn last that it was in vain.

    Raises:
        InvalidInput: the engine does not take such a model.
        PreconditionFailed: the engine is not installed.
    """
    directory = given_path(unquote(model.removeprefix("file://")), field="spec.model")
    if model not in EMBEDDED_MODELS and (directory / "config.json").is_file():
        check_config(directory)
        model_shape(model, directory)


def check_model(spec: RunSpec, engine: EngineSettings, shape: ModelShape) -> None:
    """Refuse what `prepare` would refuse once the model is loaded, before its weights are read.

    Raises:
        InvalidInput: the model has too few positions, lacks a target or a chat template, by field.
    """
    targets = tuple(name for name in ALL_PROJECTIONS if name in shape.targets)
    model = _described(spec, engine, positions=shape.positions, targets=targets)
    check_against_model(spec, model)
    if not shape.has_chat_template:
        _refuse_chats(spec)


def _described(
    spec: RunSpec, engine: EngineSettings, *, positions: int, targets: tuple[str, ...]
) -> ModelDescription:
    """What this machine's trainer will say of its model."""
    return ModelDescription(
        base_model=spec.model,
        base_sha256="",
        max_positions=positions,
        max_row_tokens=engine.max_row_tokens,
        max_rank=engine.max_rank,
        target_modules=targets,
        dtype="",
    )


def _refuse_chats(spec: RunSpec) -> None:
    for field, form, others in (
        ("spec.edit.format", spec.edit.format, "base"),
        ("spec.evaluation.questionFormat", spec.evaluation.question_format, "few-shot or plain"),
    ):
        if form == "chat":
            raise InvalidInput(
                f"{field}: {spec.model} has no chat template, so that it cannot be asked in a chat",
                field=field,
                remedy=f"use {others}, or a model with a chat template",
            )
