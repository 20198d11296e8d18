"""The JSON Schema of the manifest, by which an editor completes and checks it.

`make schema` writes docs/restemrun.schema.json from the models; a test keeps it current. What a
manifest leaves out comes from its profile, so the schema names no defaults of the spec.
"""

from __future__ import annotations

import json
import sys

from seal.resources import RUN_KIND, RestEMRun

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def manifest_schema() -> str:
    """The schema as the text of its file."""
    schema = RestEMRun.model_json_schema(by_alias=True)
    _drop_defaults(schema)
    _state_what_may_be_more(schema)
    whole = {"$schema": DIALECT, "title": RUN_KIND, **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _state_what_may_be_more(schema: dict[str, object]) -> None:
    """A file says what it is, and kubectl may add a status."""
    schema["required"] = ["apiVersion", "kind", "metadata"]
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
    sys.stdout.write(manifest_schema())
