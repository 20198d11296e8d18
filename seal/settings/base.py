"""What every settings model stands on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

MAX_SEED = 2**63 - 1
"""A seed fits the 64-bit integer that Kubernetes and protobuf know."""


class Settings(BaseModel):
    """Base of every settings model: frozen, unknown fields refused, numbers finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


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
