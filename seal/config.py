"""From a manifest and a profile to a run, and to the engine of local mode.

Profile, then file, then overrides, each laid over the one before, field by field. Every refusal
names where the value came from, the dotted field as the file writes it, what is wrong and, for a
field that does not exist, the one that was probably meant.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from seal import refusals
from seal.errors import InvalidInput
from seal.resources import API_VERSION, RUN_KIND, RestEMRun
from seal.settings import EngineSettings, FileSettings, RunSpec
from seal.yaml_files import STANDARD_INPUT, Tree, parse_yaml, read_text

PROFILES: tuple[str, ...] = get_args(RunSpec.model_fields["profile"].annotation)
"""Names of the profiles in `seal/profiles`."""
_SHOWN_ERRORS = 5
_HEAD = f"begin it with `apiVersion: {API_VERSION}` and `kind: {RUN_KIND}`"

Section = TypeVar("Section", bound=FileSettings)


@dataclass(frozen=True)
class _Layer:
    """One source of values."""

    name: str
    """What errors call it."""
    values: Tree
    names_field: bool = False
    """Its name says which field: an option of its own, as `--name`."""


def load_run(
    path: Path | None,
    overrides: Mapping[str, object] | None = None,
    options: Mapping[str, tuple[str, object]] | None = None,
) -> RestEMRun:
    """Read a run's manifest.

    `path`: YAML file, `-` for standard input, or None for the profile alone under the name `run`.
    `overrides`: values that win over the file, as `changes_to_run` makes them; a value of None is
    no override. `options`: what options of their own say, each with its field; they win over the
    overrides. The profile is the overrides' or the file's `spec.profile`, else `embedded`.

    Raises NotFound for a missing file and InvalidInput naming source, field and remedy for
    everything else.
    """
    file = _read_manifest(path) if path is not None else _Layer("", {"metadata": {"name": "run"}})
    override = _Layer("--set", _nested(_below_spec(overrides or {})))
    profile = _load_profile(_profile_name(override.values) or _profile_name(file.values))
    spec = {"spec": profile.values.get("spec", {})}
    own = [
        _Layer(option, _nested({field: value}), names_field=True)
        for option, (field, value) in (options or {}).items()
    ]
    return _validated(RestEMRun, (_Layer(profile.name, spec), file, override, *own))


def load_engine(profile: str, overrides: Mapping[str, object] | None = None) -> EngineSettings:
    """The engine of local mode: what the profile says, then `SEAL_*` variables, then overrides.

    The variables are those of the services: `SEAL_MAX_RANK` for `maxRank`. Raises InvalidInput
    naming source, field and remedy.
    """
    layer = _load_profile(profile)
    engine = layer.values.get("engine", {})
    layers = (
        _Layer(f"{layer.name}: engine", engine if isinstance(engine, dict) else {}),
        _Layer("environment", dict(_from_environment())),
        _Layer("--engine", _nested(overrides or {})),
    )
    return _validated(EngineSettings, layers)


def _from_environment() -> Iterator[tuple[str, str]]:
    """Engine fields that a `SEAL_*` variable sets, as files write them."""
    for name, field in EngineSettings.model_fields.items():
        if (value := os.environ.get(f"SEAL_{name.upper()}")) is not None:
            yield field.alias or name, value


def _validated(kind: type[Section], layers: tuple[_Layer, ...]) -> Section:
    """The layers laid over each other, as a model; by alias only, as files are written."""
    merged: Tree = {}
    for layer in layers:
        merged = _merge(merged, layer.values, kind)
    try:
        return kind.model_validate(merged, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(error, layers, kind) from error


def _profile_name(values: Tree) -> str:
    spec = values.get("spec")
    name = spec.get("profile") if isinstance(spec, dict) else None
    return str(name) if name is not None else ""


def _below_spec(overrides: Mapping[str, object]) -> dict[str, object]:
    """Overrides of fields of the spec may leave out `spec.`."""
    whole = ("spec", *(alias for alias, _ in _aliases(RestEMRun)))
    return {
        key if key.split(".")[0] in whole else f"spec.{key}": value
        for key, value in overrides.items()
    }


def _read_manifest(path: Path) -> _Layer:
    """A file that says what it is.

    Raises InvalidInput if it is another kind of object, or says not which.
    """
    name = "standard input" if path == STANDARD_INPUT else str(path)
    values = parse_yaml(read_text(path, name), where=name)
    kind, version = values.get("kind"), values.get("apiVersion")
    if kind is None or version is None:
        missing = "kind" if kind is None else "apiVersion"
        raise InvalidInput(
            f"{name} is no manifest: it has no `{missing}`",
            field=missing,
            remedy=f"{_HEAD}, `metadata.name`, and put the settings below `spec`",
        )
    if kind != RUN_KIND or version != API_VERSION:
        raise InvalidInput(
            f"{name} is a {kind!s:.80} of {version!s:.80}, which this command does not run",
            field="kind" if kind != RUN_KIND else "apiVersion",
            remedy=_HEAD,
        )
    values.pop("status", None)  # what `kubectl get -o yaml` shows beside the spec
    return _Layer(name, values)


def _load_profile(name: str) -> _Layer:
    """Values of a profile. Raises InvalidInput naming the profiles there are."""
    name = name or PROFILES[0]
    if name not in PROFILES:
        raise InvalidInput(
            f"spec.profile: {name!r} is unknown",
            field="spec.profile",
            remedy="use one of: " + ", ".join(PROFILES),
        )
    text = (importlib.resources.files("seal") / "profiles" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    return _Layer(f"profile {name}", parse_yaml(text, where=f"profile {name}"))


def _nested(overrides: Mapping[str, object]) -> Tree:
    """Dotted keys to nested mappings; None values are left out."""
    tree: Tree = {}
    for key, value in overrides.items():
        if value is None:
            continue
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        tree = _laid_over(tree, nested if isinstance(nested, Mapping) else {})
    return tree


def _merge(under: Tree, over: Mapping[str, object], kind: type[BaseModel]) -> Tree:
    """Lay one tree over another, where an empty section of a known name changes nothing."""
    known = dict(_aliases(kind))
    given = {key: value for key, value in over.items() if value is not None or key not in known}
    merged = dict(under)
    for key, value in given.items():
        section, below = known.get(key), merged.get(key)
        if isinstance(value, Mapping) and section is not None:
            merged[key] = _merge(below if isinstance(below, dict) else {}, value, section)
        else:
            merged[key] = value
    return merged


def _laid_over(under: Tree, over: Mapping[str, object]) -> Tree:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            _laid_over(below, value)
            if isinstance(below, dict) and isinstance(value, Mapping)
            else value
        )
    return merged


def _aliases(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """The fields as files write them, each with the model of its section if it is one."""
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)  # a section may be left out
        sections = (kind for kind in kinds if isinstance(kind, type))
        section = next((kind for kind in sections if issubclass(kind, BaseModel)), None)
        yield field.alias or name, section


def _refusal(
    error: ValidationError, layers: tuple[_Layer, ...], kind: type[BaseModel]
) -> InvalidInput:
    """All that pydantic found, the first in full with its remedy."""
    found = error.errors(include_url=False)
    # A list without its wrong entries is too short as well: one fault is told once
    places = {detail["loc"][:-1] for detail in found}
    details = [detail for detail in found if detail["loc"] not in places]
    shown = [
        f"{_source(detail, layers)}: {_problem(detail, kind)}" for detail in details[:_SHOWN_ERRORS]
    ]
    if len(details) > _SHOWN_ERRORS:
        shown.append(f"and {len(details) - _SHOWN_ERRORS} more")
    return InvalidInput(
        "; ".join(shown), field=_field(details[0]), remedy=_remedy(details[0], kind)
    )


def _field(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in _location(detail))


def _location(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Where the fault lies.

    Pydantic reports at their section what two fields together break; our own refusals name it.
    """
    refused = _refused(detail)
    return (*detail["loc"], *(refused.field.split(".") if refused else ()))


def _refused(detail: ErrorDetails) -> InvalidInput | None:
    """The refusal of a validator of ours, if it is one."""
    error = detail.get("ctx", {}).get("error")
    return error if isinstance(error, InvalidInput) else None


def _source(detail: ErrorDetails, layers: tuple[_Layer, ...]) -> str:
    """The topmost layer that says something about the field, and the field."""
    layer = next((layer for layer in reversed(layers) if _says(layer, detail)), layers[0])
    return layer.name if layer.names_field else f"{layer.name}: {_field(detail)}"


def _says(layer: _Layer, detail: ErrorDetails) -> bool:
    value: object = layer.values
    for part in _location(detail):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
        if not isinstance(value, Mapping):
            return True
    return True


def _problem(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        return "there is no such field"
    if refused := _refused(detail):
        return refused.message
    return refusals.problem(detail, refusals.schema_at(kind, detail["loc"]))


def _remedy(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    if refused := _refused(detail):
        return refused.remedy
    *parents, wrong = [str(part) for part in detail["loc"]]
    if detail["type"] == "missing":
        return f"add `{_field(detail)}`"
    if detail["type"] != "extra_forbidden":
        return (
            refusals.remedy(detail, refusals.schema_at(kind, detail["loc"]))
            or "`seal config show` says what it may be"
        )
    here = [alias for alias, _ in _aliases(_model_at(parents, kind))]
    prefix = "".join(f"{parent}." for parent in parents)
    if near := difflib.get_close_matches(_plain(wrong), here, n=1):
        return f"did you mean {prefix}{near[0]}?"
    everywhere = list(_all_fields(kind))
    if elsewhere := [path for path in everywhere if path.rsplit(".", 1)[-1] == _plain(wrong)]:
        return "did you mean " + " or ".join(elsewhere) + "?"
    return f"the fields of {prefix.rstrip('.') or 'it'} are: " + ", ".join(here)


def _plain(name: str) -> str:
    """A field as it would be written, from one written with underscores or dashes."""
    first, *others = name.replace("-", "_").split("_")
    return first + "".join(part.capitalize() for part in others)


def _model_at(path: list[str], model: type[BaseModel]) -> type[BaseModel]:
    for part in path:
        model = dict(_aliases(model)).get(part) or model
    return model


def _all_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields, sections included."""
    for alias, section in _aliases(model):
        yield prefix + alias
        if section is not None:
            yield from _all_fields(section, f"{prefix}{alias}.")
