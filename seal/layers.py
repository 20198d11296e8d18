"""Values from several sources laid over each other, and whom a refusal names.

Every refusal names where the value came from, the dotted field as the file writes it, what is wrong
and, for a field that does not exist, the one that was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from seal import refusals
from seal.errors import InvalidInput
from seal.settings import FileSettings
from seal.yaml_files import Tree

_SHOWN_ERRORS = 5

Section = TypeVar("Section", bound=FileSettings)


@dataclass(frozen=True)
class Layer:
    """One source of values."""

    name: str
    """What errors call it."""
    values: Tree
    names_field: bool = False
    """Its name says which field: an option of its own, as `--name`."""


def validated(kind: type[Section], layers: tuple[Layer, ...]) -> Section:
    """The layers laid over each other, as a model; by alias only, as files are written."""
    merged: Tree = {}
    for layer in layers:
        merged = _merge(merged, layer.values, kind)
    try:
        return kind.model_validate(merged, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(error, layers, kind) from error


def nested_tree(overrides: Mapping[str, object]) -> Tree:
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
    known = aliases(kind)
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


@cache
def aliases(model: type[BaseModel]) -> Mapping[str, type[BaseModel] | None]:
    """The fields as files write them, each with the model of its section if it is one."""
    return MappingProxyType(dict(_aliases(model)))


def _aliases(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel] | None]]:
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)  # a section may be left out
        sections = (kind for kind in kinds if isinstance(kind, type))
        section = next((kind for kind in sections if issubclass(kind, BaseModel)), None)
        yield field.alias or name, section


def _refusal(
    error: ValidationError, layers: tuple[Layer, ...], kind: type[BaseModel]
) -> InvalidInput:
    """All that pydantic found, the first in full with its remedy."""
    found = error.errors(include_url=False)
    # A list without its wrong entries is too short as well: one fault is told once
    places = {detail["loc"][:depth] for detail in found for depth in range(len(detail["loc"]))}
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
    within = refused.field.split(".") if refused and refused.field else ()
    return (*detail["loc"], *within)


def _refused(detail: ErrorDetails) -> InvalidInput | None:
    """The refusal of a validator of ours, if it is one."""
    error = detail.get("ctx", {}).get("error")
    return error if isinstance(error, InvalidInput) else None


def _source(detail: ErrorDetails, layers: tuple[Layer, ...]) -> str:
    """The topmost layer that says something about the field, and the field."""
    layer = next((layer for layer in reversed(layers) if _says(layer, detail)), layers[0])
    return layer.name if layer.names_field else f"{layer.name}: {_field(detail)}"


def _says(layer: Layer, detail: ErrorDetails) -> bool:
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
    here = list(aliases(_model_at(parents, kind)))
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
        model = aliases(model).get(part) or model
    return model


def _all_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields, sections included."""
    for alias, section in aliases(model).items():
        yield prefix + alias
        if section is not None:
            yield from _all_fields(section, f"{prefix}{alias}.")
