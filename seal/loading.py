"""What a process with a model stands on: its store, its model, and what computes with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from seal.artifacts import ArtifactStore
from seal.awaited_models import await_model
from seal.backends import ModelWriter, TextBackend
from seal.errors import InvalidInput, NotFound, PreconditionFailed
from seal.models import ResolvedModel
from seal.options import EngineOptions, TextOptions
from seal.settings import EngineSettings
from seal.settings.vllm import VllmSettings

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.engine import Engine

log = structlog.get_logger(__name__)

AnyOptions = TypeVar("AnyOptions", bound=EngineOptions)
Loaded = TypeVar("Loaded", bound=ModelWriter)


@dataclass(frozen=True)
class Backend(Generic[Loaded]):
    """What a service stands on."""

    engine: Loaded
    store: ArtifactStore
    adapters: AdapterCache


def load_engine(options: EngineOptions) -> Engine:
    """The engine with the model that `--model` names."""
    model = _model(options)
    from seal.engine import Engine  # torch takes seconds to import: not for a model that is none

    return Engine.load(
        model.path, name=options.model, settings=options.part(EngineSettings), base=model.base
    )


def load_backend(options: TextOptions) -> TextBackend:
    """What `--backend` names, with the model that `--model` names."""
    if options.backend == "engine":
        return load_engine(options)
    model = _model(options)
    from seal.vllm.load import load_vllm

    return load_vllm(
        model.path,
        name=options.model,
        settings=options.part(EngineSettings),
        own=options.part(VllmSettings),
        base=model.base,
    )


def _model(options: EngineOptions) -> ResolvedModel:
    """The model, found, waited for or downloaded."""
    model = await_model(
        options.model,
        models_dir=options.models_dir,
        offline=options.offline,
        wait_seconds=options.model_wait_seconds,
    )
    log.info(
        "loading the model",
        model=options.model,
        path=str(model.path),
        device=options.device,
        dtype=options.dtype,
    )
    return model


def open_backend(options: AnyOptions, load: Callable[[AnyOptions], Loaded]) -> Backend[Loaded]:
    """What a process stands on: its store is looked at, its model found, checked and loaded.

    `load`: what it computes with, `load_engine` or `load_backend`. Raises InvalidInput,
    NotFound or PreconditionFailed for what the process was given, Transient for what is away.
    """
    _check_scratch()
    store = ArtifactStore(options.artifacts)
    if options.writes:
        store.check()
    else:
        store.exists("probe")  # one that cannot be reached is found now, not by the first request
    engine = load(options)
    from seal.adapters import (
        # Torch takes seconds to import: neither for --help nor for a model that is none
        AdapterCache,
    )

    return Backend(engine, store, AdapterCache(store, base=engine.base))


def _check_scratch() -> None:
    """Refuse to start where nothing can be put aside: torch would say so by a traceback."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise PreconditionFailed(
            "no directory for temporary files can be written",
            remedy="mount one at /tmp (in a pod with a read-only root: an emptyDir), or name one "
            "in TMPDIR",
        ) from error


@contextmanager
def wrong_input() -> Iterator[None]:
    """What does not exist or is not installed is the caller's mistake while a process starts."""
    try:
        yield
    except (NotFound, PreconditionFailed) as error:
        raise InvalidInput(error.message, remedy=error.remedy, field=error.field) from error
