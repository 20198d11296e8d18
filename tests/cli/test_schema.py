"""The JSON Schemas of the manifests are current and say what is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from seal.config import load_run
from seal.schema import KINDS, manifest_schema
from seal.settings import AdaptationSpec, LearningSpec, RunSpec
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = REPOSITORY / "docs/restemrun.schema.json"
SPECS: dict[str, type[LearningSpec]] = {"RestEMRun": RunSpec, "Adaptation": AdaptationSpec}
CLUSTER: dict[str, type[ClusterSettings]] = {
    "RestEMRun": ClusterSettings,
    "Adaptation": AdaptationClusterSettings,
}
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
MANIFESTS = [
    *EXAMPLES,
    *(REPOSITORY / "seal/profiles" / name for name in ("demo.yaml", "demo-quick.yaml")),
]


def committed(kind: str) -> Path:
    """The file of a kind's schema."""
    return REPOSITORY / f"docs/{kind.lower()}.schema.json"


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_in_the_docs_is_current(kind: str) -> None:
    assert committed(kind).read_text(encoding="utf-8") == manifest_schema(kind), "run `make schema`"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_of_the_project_is_accepted_and_known_to_the_schema(path: Path) -> None:
    load_run(path)
    assert unknown(yaml.safe_load(path.read_text()), json.loads(SCHEMA.read_text())) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_tells_editors_where_its_schema_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    where = first.removeprefix("# yaml-language-server: $schema=")
    assert where != first
    assert (path.parent / where).resolve() == SCHEMA


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_describes_every_field_and_names_no_default_that_a_profile_may_change(
    kind: str,
) -> None:
    schema = json.loads(committed(kind).read_text())
    spec = schema["$defs"][SPECS[kind].__name__]["properties"]
    own = [field.alias for field in SPECS[kind].model_fields.values()]
    beside = [field.alias for field in CLUSTER[kind].model_fields.values()]
    assert list(spec) == own + beside
    fields = [
        field
        for model in schema["$defs"].values()
        for field in model.get("properties", {}).values()
    ]
    assert all(field["description"] for field in fields)
    assert not any("default" in field for field in fields)
    assert unknown({"spec": {"edit": {"max_tokens": 3}}}, schema) == ["spec.edit.max_tokens"]


def test_an_adaptation_cannot_do_without_documents() -> None:
    schema = json.loads(committed("Adaptation").read_text())
    assert schema["required"] == ["apiVersion", "kind", "metadata", "spec"]
    assert schema["$defs"]["AdaptationSpec"]["required"] == ["data"]
    assert schema["$defs"]["AdaptationData"]["required"] == ["documents"]


def unknown(values: object, schema: dict, path: str = "", root: dict | None = None) -> list[str]:
    """Fields that the schema does not know, by dotted name."""
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    if not isinstance(values, dict) or schema.get("additionalProperties", True) is not False:
        return []
    known = schema["properties"]
    found = [f"{path}{name}" for name in values if name not in known]
    for name, value in values.items():
        found += unknown(value, known.get(name, {}), f"{path}{name}.", root)
    return found
