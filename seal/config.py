"""From a YAML file to a `RunSpec`.

Profile, then file, then overrides, each laid over the one before, field by field. Every refusal
names where the value came from, the dotted field, what is wrong and, for a field that does not
exist, the one that was probably meant.
"""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from seal.errors import InvalidInput
from seal.files import file_errors
from seal.settings import RunSpec

PROFILES: tuple[str, ...] = get_args(RunSpec.model_fields["profile"].annotation)
"""Names of the profiles in `seal/profiles`."""
OVERRIDES = "override"
"""What an error calls a value that came from the overrides."""
MAX_CONFIG_BYTES = 1 << 20
"""A larger file is no config file."""
_SHOWN_ERRORS = 5

Tree = dict[str, object]
"""Nested mapping as YAML gives it."""


@dataclass(frozen=True)
class _Layer:
    """One source of values."""

    name: str
    """What errors call it."""
    values: Tree


def load_run_spec(path: Path | None, overrides: Mapping[str, object] | None = None) -> RunSpec:
    """Read a run's config.

    `path`: YAML file, or None for the profile alone. `overrides`: values that win over the file;
    keys may be dotted (`"inner.optimizer.epochs": 5`) or nested mappings; a value of None is no
    override. The profile is the overrides' or the file's `profile`, else `embedded`.

    Raises NotFound for a missing file and InvalidInput naming source, field and remedy for
    everything else.
    """
    file = _Layer(str(path), _read_yaml(path)) if path is not None else _Layer("", {})
    override = _Layer(OVERRIDES, _nested(overrides or {}))
    profile = _load_profile(
        str(override.values.get("profile") or file.values.get("profile") or PROFILES[0])
    )
    layers = (profile, file, override)
    merged: Tree = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
    try:
        return RunSpec.model_validate(merged)
    except ValidationError as error:
        raise _refusal(error, layers) from error


def _load_profile(name: str) -> _Layer:
    """Values of a profile. Raises InvalidInput naming the profiles there are."""
    if name not in PROFILES:
        raise InvalidInput(
            f"profile: {name!r} is unknown",
            field="profile",
            remedy="use one of: " + ", ".join(PROFILES),
        )
    text = (importlib.resources.files("seal") / "profiles" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    return _Layer(f"profile {name}", _parse_yaml(text, where=f"profile {name}"))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the trap that the last of two equal keys wins silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> Tree:
    with file_errors(path):
        if path.is_dir():
            raise InvalidInput(f"{path} is a directory", remedy="give a YAML file")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidInput(
                f"{path} has more than {MAX_CONFIG_BYTES} bytes",
                remedy="give the config file, not the dataset",
            )
        content = path.read_bytes()
    try:
        return _parse_yaml(content.decode("utf-8"), where=str(path))
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is not UTF-8 at byte {error.start}", remedy="save it as UTF-8 text"
        ) from error


def _parse_yaml(text: str, *, where: str) -> Tree:
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"{where} is no valid YAML: {_yaml_problem(error)}", remedy="correct that line"
        ) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InvalidInput(
            f"{where} holds no mapping of fields",
            remedy="write `field: value` lines, for example `rounds: 1`",
        )
    return tree


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]


def _nested(overrides: Mapping[str, object]) -> Tree:
    """Dotted keys to nested mappings; None values are left out."""
    tree: Tree = {}
    for key, value in overrides.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = _merge(tree, value)  # type: ignore[arg-type]
    return tree


def _merge(under: Tree, over: Mapping[str, object]) -> Tree:
    """Lay one tree over another.

    A mapping is merged field by field, anything else replaces; None (an empty section) changes
    nothing.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if value is None and (below is not None or key in RunSpec.model_fields):
            continue
        if isinstance(value, Mapping):
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _refusal(error: ValidationError, layers: tuple[_Layer, ...]) -> InvalidInput:
    """All that pydantic found, the first in full with its remedy."""
    details = error.errors(include_url=False)
    shown = [
        f"{_source(detail, layers)}: {_field(detail)}: {_problem(detail)}"
        for detail in details[:_SHOWN_ERRORS]
    ]
    if len(details) > _SHOWN_ERRORS:
        shown.append(f"and {len(details) - _SHOWN_ERRORS} more")
    return InvalidInput("; ".join(shown), field=_field(details[0]), remedy=_remedy(details[0]))


def _field(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in _location(detail))


def _location(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Where the fault lies.

    Pydantic reports without a place what two fields break together; our own refusals name it.
    """
    refused = _refused(detail)
    return tuple(refused.field.split(".")) if refused else detail["loc"]


def _refused(detail: ErrorDetails) -> InvalidInput | None:
    """The refusal of a validator of ours, if it is one."""
    error = detail.get("ctx", {}).get("error")
    return error if isinstance(error, InvalidInput) else None


def _source(detail: ErrorDetails, layers: tuple[_Layer, ...]) -> str:
    """The topmost layer that says something about the field."""
    for layer in reversed(layers):
        value: object = layer.values
        for part in _location(detail):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
            if not isinstance(value, Mapping):
                return layer.name
        else:
            return layer.name
    return layers[0].name


def _problem(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "there is no such field"
    if refused := _refused(detail):
        return refused.message
    value = repr(detail["input"])
    return f"{detail['msg']}, got {value if len(value) <= 80 else value[:77] + '...'}"


def _remedy(detail: ErrorDetails) -> str:
    if refused := _refused(detail):
        return refused.remedy
    if detail["type"] != "extra_forbidden":
        return "correct the value"
    wrong, *parents = reversed([str(part) for part in detail["loc"]])
    here = _model_at(list(reversed(parents)))
    prefix = "".join(f"{parent}." for parent in reversed(parents))
    if near := difflib.get_close_matches(wrong, here.model_fields, n=1):
        return f"did you mean {prefix}{near[0]}?"
    if elsewhere := [path for path in _all_fields(RunSpec) if path.rsplit(".", 1)[-1] == wrong]:
        return "did you mean " + " or ".join(elsewhere) + "?"
    return f"the fields of {prefix.rstrip('.') or 'a run'} are: " + ", ".join(here.model_fields)


def _model_at(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = RunSpec
    for part in path:
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model


def _all_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_fields(field.annotation, f"{prefix}{name}.")
