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
from typing import Any

from pydantic import BaseModel

from seal.resources import ADAPTATION_KIND, RUN_KIND, Adaptation, RestEMRun
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS: Mapping[str, type[RestEMRun | Adaptation]] = MappingProxyType(
    {RUN_KIND: RestEMRun, ADAPTATION_KIND: Adaptation}
)
"""The manifests by kind."""
_OF_A_CLUSTER: Mapping[str, type[ClusterSettings]] = MappingProxyType(
    {RUN_KIND: ClusterSettings, ADAPTATION_KIND: AdaptationClusterSettings}
)
"""What may stand beside the spec's own fields."""


def manifest_schema(kind: str) -> str:
    """The schema of one kind of manifest (a key of `KINDS`) as the text of its file."""
    schema = _together(KINDS[kind], _OF_A_CLUSTER[kind])
    _drop_defaults(schema)
    _state_what_may_be_more(schema)
    whole = {"$schema": DIALECT, "title": kind, **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _together(manifest: type[RestEMRun | Adaptation], cluster: type[BaseModel]) -> dict[str, Any]:
    """The manifest's schema, with what only a cluster has among the fields of its spec."""
    schema = manifest.model_json_schema(by_alias=True)
    beside = cluster.model_json_schema(by_alias=True)
    spec = schema["properties"]["spec"]["$ref"].rpartition("/")[2]
    schema["$defs"][spec]["properties"] |= beside["properties"]
    schema["$defs"] |= beside["$defs"]
    return schema


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
