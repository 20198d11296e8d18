"""The JSON Schemas of the manifests, by which an editor completes and checks them.

`make schema` writes docs/restemrun.schema.json and docs/adaptation.schema.json from the models; a
test keeps them current. What a manifest leaves out comes from its profile, so a schema names no
defaults of the spec.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType

from seal.resources import ADAPTATION_KIND, RUN_KIND, Adaptation, RestEMRun

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS: Mapping[str, type[RestEMRun | Adaptation]] = MappingProxyType(
    {RUN_KIND: RestEMRun, ADAPTATION_KIND: Adaptation}
)
"""The manifests by kind."""


def manifest_schema(kind: str) -> str:
    """The schema of one kind of manifest (a key of `KINDS`) as the text of its file."""
    schema = KINDS[kind].model_json_schema(by_alias=True)
    _drop_defaults(schema)
    _state_what_may_be_more(schema)
    whole = {"$schema": DIALECT, "title": kind, **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _state_what_may_be_more(schema: dict[str, object]) -> None:
    """A file says what it is, and kubectl may add a status."""
    required = schema.get("required")
    asked = required if isinstance(required, list) else []
    schema["required"] = ["apiVersion", "kind", *asked]
    properties = schema["properties"]
    if isinstance(properties, dict):
        properties["status"] = {"type": "object", "description": "What kubectl shows; ignored."}


def _drop_defaults(node: object) -> None:
    if isinstance(node, dict):
        if "description" in node or "$ref" in node or "type" in node:
            node.pop("default", None)
        for value in node.values():
            _drop_defaults(value)
    elif isinstance(node, list):
        for value in node:
            _drop_defaults(value)


if __name__ == "__main__":
    sys.stdout.write(manifest_schema(sys.argv[1]))
