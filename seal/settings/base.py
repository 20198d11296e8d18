"""What every settings model stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

MAX_SEED = 2**63 - 1
"""A seed fits the 64-bit integer that Kubernetes and protobuf know, and torch's generators."""


class Settings(BaseModel):
    """Base of every settings model: frozen, unknown fields refused, numbers finite.

    A boolean is no number.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_boolean_is_a_number(cls, values: object) -> object:
        """YAML's `yes` is true, which pydantic takes for 1 and a cluster's schema refuses."""
        if not isinstance(values, Mapping):
            return values
        numbers = _numbers(cls)
        return {key: _spelt(one) if key in numbers else one for key, one in values.items()}


def _spelt(value: object) -> object:
    """Booleans, alone or in a list, by their words, which are no numbers."""
    if isinstance(value, list):
        return [_spelt(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else value


@cache
def _numbers(kind: type[BaseModel]) -> frozenset[str]:
    """Fields that hold numbers and no booleans, by name and alias."""
    found = set[str]()
    for name, field in kind.model_fields.items():
        leaves = set(_leaves(field.annotation))
        if leaves & {int, float} and bool not in leaves:
            found |= {name, field.alias or name}
    return frozenset(found)


def _leaves(annotation: Any) -> Iterator[Any]:
    if not (arguments := get_args(annotation)):
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


class FileSettings(Settings):
    """Base of the settings that stand in files: there, and in every dump, camelCase.

    Python code writes the fields' own names; a file is validated by alias alone.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )
