"""What pydantic finds wrong with a setting, in plain words: what it is, and what it may be.

Pydantic's own sentences are about types of a program. The words for what a field may be come from
its JSON schema, so that the list of bounds and choices is the one of the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Schema = Mapping[str, object]

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "a section of fields",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "entry", "entries"),
    "too_long": ("at most", "max_length", "entry", "entries"),
    "string_too_short": ("at least", "min_length", "character", "characters"),
    "string_too_long": ("at most", "max_length", "character", "characters"),
}
_OF_A_KIND = ("_type", "_parsing", "_from_float", "_attributes_type", "_parsing_size")
"""Ends of the types of errors that say: it is of another kind."""
_SHOWN_CHARACTERS = 80


def problem(detail: ErrorDetails, about: Schema) -> str:
    """What is wrong with a value; `about`: the JSON schema of its field, empty if unknown."""
    kind, context, given = detail["type"], detail.get("ctx", {}), shown(detail["input"])
    if kind == "missing":
        return "it is missing"
    if kind == "literal_error":
        return f"{given} is none of its values"
    if kind == "string_pattern_mismatch":
        return f"{given} has not the form that is asked for"
    if kind == "finite_number":
        return f"must be a finite number, got {given}"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"must be {words} {_plain(context[name])}, got {given}"
    if kind in _LENGTHS:
        words, name, one, many = _LENGTHS[kind]
        limit = context[name]
        got = context.get("actual_length", given)
        return f"must have {words} {limit} {one if limit == 1 else many}, got {got}"
    if (wanted := kind_of(about)) and kind.endswith(_OF_A_KIND):
        return f"must be {wanted}, got {given}"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {given}"


def remedy(detail: ErrorDetails, about: Schema) -> str:
    """What to give in place of a wrong value, with bounds or choices; empty if it is not known."""
    if choices := choices_of(about):
        listed = ", ".join(choices)
        near = difflib.get_close_matches(str(detail["input"]), choices, n=1)
        return (
            f"did you mean {near[0]}? It is one of: {listed}" if near else f"use one of: {listed}"
        )
    if "pattern" in about and "description" in about:
        return f"give a {str(about['description']).splitlines()[0].lower()}"
    wanted, limits = kind_of(about), bounds(about)
    return f"give {wanted}{f', {limits}' if limits else ''}" if wanted else ""


def shown(value: object) -> str:
    """A value as a message has it: short, and without what a program calls it."""
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a section of fields"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def schema_at(model: type[BaseModel], location: Sequence[int | str]) -> Schema:
    """The JSON schema of a field, by its place as files write it; empty if there is none."""
    whole = model.model_json_schema(by_alias=True)
    definitions = whole.get("$defs", {})
    node: object = whole
    for part in location:
        here = _resolved(node, definitions)
        if isinstance(part, int):
            node = here.get("items", {})
        else:
            properties = here.get("properties", {})
            node = properties.get(part, {}) if isinstance(properties, Mapping) else {}
    return _resolved(node, definitions)


def _resolved(node: object, definitions: Mapping[str, Schema]) -> Schema:
    """A schema in the place of its reference, or of the first of several that is not null."""
    if not isinstance(node, Mapping):
        return {}
    if isinstance(reference := node.get("$ref"), str):
        return definitions.get(reference.rpartition("/")[2], {})
    if isinstance(several := node.get("anyOf"), list):
        first: Schema = next((one for one in several if one.get("type") != "null"), {})
        return _resolved(first, definitions)
    return node


def kind_of(about: Schema) -> str:
    """A whole number, a list; empty if it is not known."""
    return _KINDS.get(str(about.get("type", "")), "")


def choices_of(about: Schema) -> list[str]:
    """The values of a field that has only a few; empty for every other."""
    choices = about.get("enum", [about["const"]] if "const" in about else [])
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def bounds(about: Schema) -> str:
    """What a field may be: `1 to 1024`, `one of linear, cosine`; empty where any value will do."""
    if "enum" in about:
        return "one of " + ", ".join(choices_of(about))
    least = about.get("minimum", about.get("exclusiveMinimum"))
    most = about.get("maximum", about.get("exclusiveMaximum"))
    if least is None and most is None:
        return ""
    low = "" if least is None else _plain(least)
    high = "" if most is None else _plain(most)
    if "exclusiveMinimum" in about:
        low = f"above {low}"
    if "exclusiveMaximum" in about:
        high = f"below {high}"
    if not high:
        return low if "exclusiveMinimum" in about else f"{low} or more"
    return f"{low} to {high}" if low else f"up to {high}"


def _plain(number: object) -> str:
    """A bound as people write it: 1 for 1.0."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)
