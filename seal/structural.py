"""From a pydantic model to a structural schema, which is what a CustomResourceDefinition takes.

Kubernetes knows a part of JSON Schema, and of that some in the words of OpenAPI 3.0: there are no
references, null is the word `nullable`, and an exclusive bound is a bound with a flag. Fields that
no schema names are pruned by the API server, or refused if the client asks for strictness, so that
`additionalProperties: false` is not needed beside `properties`, where it is not allowed either.
Defaults stay out: what a manifest leaves open comes from its profile. A bound that no float holds
stays out, too: the API server compares in floats, where 2**63 - 1 becomes 2**63, and then the least
of all integers. The format says what an integer can be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel

from seal.yaml_files import Tree

_DROPPED = frozenset({"title", "default", "examples", "propertyNames", "$defs"})
_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_EXACT = 2**53
"""The largest integer up to which a float holds each."""


def structural_schema(model: type[BaseModel]) -> Tree:
    """The structural schema of a model, its fields named as files write them.

    Raises:
        ValueError: a field is of several kinds, which no structural schema can say.

    """
    schema = model.model_json_schema(by_alias=True)
    definitions = cast("Mapping[str, Tree]", schema.get("$defs", {}))
    return _converted(schema, definitions)


def _converted(node: Mapping[str, object], definitions: Mapping[str, Tree]) -> Tree:
    """One schema with all that is below it."""
    node = _inlined(node, definitions)
    made: Tree = {}
    for word, value in node.items():
        if word in _DROPPED or (word == "additionalProperties" and "properties" in node):
            continue
        if word in ("minimum", "maximum") and abs(cast("float", value)) > _EXACT:
            continue
        if word in _BOUNDS:
            made |= {_BOUNDS[word]: value, word: True}
        elif word == "const":
            made["enum"] = [value]
        elif word == "properties":
            fields = cast("Mapping[str, Tree]", value)
            made[word] = {name: _converted(below, definitions) for name, below in fields.items()}
        elif word in ("items", "additionalProperties") and isinstance(value, Mapping):
            made[word] = _converted(value, definitions)
        else:
            made[word] = value
    if made.get("nullable") and "enum" in made:
        # The API server refuses null wherever there is an enum, also where null is one of its words
        words = cast("list[str]", made.pop("enum"))
        made["pattern"] = f"^({'|'.join(map(re.escape, words))})$"
    if made.get("type") == "integer":
        made["format"] = "int64"
    return made


def _inlined(node: Mapping[str, object], definitions: Mapping[str, Tree]) -> Tree:
    """A schema without references, and null as a word of its own."""
    whole = dict(node)
    if "$ref" in whole:
        name = str(whole.pop("$ref")).rpartition("/")[2]
        return _inlined({**definitions[name], **whole}, definitions)
    if "anyOf" not in whole or whole.get("x-kubernetes-int-or-string"):
        return whole
    kinds = cast("list[Tree]", whole.pop("anyOf"))
    others = [kind for kind in kinds if kind.get("type") != "null"]
    if len(others) != 1:
        raise ValueError(f"no structural schema has a field of several kinds: {kinds}")
    return _inlined({**others[0], **whole, "nullable": True}, definitions)
