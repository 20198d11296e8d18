"""Base models brought to a directory that others read: a volume of pods, a layer of an image.

The directory is one of `seal.kept_models`, so whoever looks meanwhile finds a whole model or none.
"""

from __future__ import annotations

from pathlib import Path

from seal.embedded import EMBEDDED_MODELS
from seal.errors import Conflict, PreconditionFailed
from seal.files import cache_directory
from seal.kept_models import Progress, copy_model, pull_again, verified_model
from seal.model_files import model_file_names
from seal.models import ResolvedModel, hub_place_of, resolve_model


def keep_model(source: str, *, to: Path, force: bool, progress: Progress) -> ResolvedModel:
    """The model in the directory of models `to`, brought there if it is not.

    What this machine has is copied; else an embedded model is made in its place, and one of the hub
    is downloaded to the hub's cache first. `force` brings it anew.

    Raises Conflict if another model has the name of a directory that is to be copied, and what
    `resolve_model` raises.
    """
    if source in EMBEDDED_MODELS:
        return _keep_embedded(source, to, force=force, progress=progress)
    if (place := hub_place_of(source, to)) is not None:
        if force or not place.is_dir():
            _copy(resolve_model(source, progress=progress), place, force=force, progress=progress)
        return resolve_model(source, models_dir=to, offline=True)
    found = resolve_model(source, progress=progress)
    place = to / found.path.name
    if place != found.path:
        _copy(found, place, force=force, progress=progress)
    kept = resolve_model(str(place), progress=progress)
    if kept.sha256 != found.sha256:
        raise Conflict(
            f"{place} holds another model than {found.path}",
            remedy="give --force to replace it, or another directory",
        )
    return kept


def _keep_embedded(source: str, to: Path, *, force: bool, progress: Progress) -> ResolvedModel:
    """Copied from this user's cache if it has it: no network is needed then."""
    place, mine = EMBEDDED_MODELS[source].place(to), _in_own_cache(source)
    if mine is None or mine == place or (place.is_dir() and not force):
        return resolve_model(source, models_dir=to, force=force, progress=progress)
    names = verified_model(mine, remedy=pull_again(source, None)).files
    copy_model(mine, tuple(names), place, force=force, progress=progress)
    return resolve_model(source, models_dir=to, offline=True)


def _copy(found: ResolvedModel, place: Path, *, force: bool, progress: Progress) -> None:
    names = model_file_names(found.path)
    copy_model(found.path, names, place, force=force, progress=progress)


def _in_own_cache(source: str) -> Path | None:
    """Where this user's cache has an embedded model; None if it has none, or there is no cache."""
    try:
        place = EMBEDDED_MODELS[source].place(cache_directory() / "models")
    except PreconditionFailed:  # a user without a home
        return None
    return place if place.is_dir() else None
