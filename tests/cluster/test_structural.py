"""From a pydantic model to what a CustomResourceDefinition takes."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from seal.settings.base import FileSettings
from seal.structural import structural_schema


class Inner(FileSettings):
    share: float = Field(default=0.5, gt=0, lt=1)


class Model(FileSettings):
    inner: Inner | None = None
    word: Literal["a"] = "a"
    long_name: int = Field(default=3, ge=1, le=2**63 - 1)
    by_name: dict[str, Inner] = Field(default={})
    maybe: Literal["x", "y"] | None = None


class OfTwoKinds(FileSettings):
    both: int | str = 0


def test_references_are_inlined_and_null_is_a_word() -> None:
    inner = {
        "type": "object",
        "properties": {
            "share": {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            }
        },
    }
    assert structural_schema(Model) == {
        "type": "object",
        "properties": {
            "inner": inner | {"nullable": True},
            "word": {"type": "string", "enum": ["a"]},
            "longName": {"type": "integer", "format": "int64", "minimum": 1},
            "byName": {"type": "object", "additionalProperties": inner},
            "maybe": {"type": "string", "pattern": "^(x|y)$", "nullable": True},
        },
    }


def test_a_field_of_several_kinds_is_refused() -> None:
    with pytest.raises(ValueError, match="several kinds"):
        structural_schema(OfTwoKinds)
