"""Amounts of a node's resources, as Kubernetes writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from seal.settings.base import FileSettings

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def _as_text(value: object) -> object:
    """`cpu: 2` is a number in YAML; the quantity is its text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _int_or_string(schema: JsonDict) -> None:
    """What Kubernetes calls a field that takes both."""
    del schema["type"]
    schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    schema["x-kubernetes-int-or-string"] = True


Quantity = Annotated[
    str,
    Field(pattern=_QUANTITY, json_schema_extra=_int_or_string),
    BeforeValidator(_as_text),
]
"""An amount of a resource as Kubernetes writes it: `2`, `500m`, `4Gi`."""


class ResourceSettings(FileSettings):
    """What a container asks for, and what it may take."""

    requests: dict[str, Quantity] = Field(default={}, max_length=16)
    """What the scheduler keeps free, by resource: `cpu`, `memory`, `nvidia.com/gpu`."""
    limits: dict[str, Quantity] = Field(default={}, max_length=16)
    """What the container may take at most, by resource."""
