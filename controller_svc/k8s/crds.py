"""The CustomResourceDefinitions of RestEMRun and Adaptation, made from their models.

`make schema` writes them into the chart; a test keeps them current. The API server so refuses, when
an object is applied, what `seal run` refuses field by field; what several fields together break is
found by `prepare`, and stands in a condition.

They are written as JSON: in YAML a key like `n` is a boolean to the programs of Kubernetes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from controller_svc.core.state import Phase
from controller_svc.k8s.objects import ObjectStatus
from seal.resources import ADAPTATION_KIND, API_VERSION, RUN_KIND, RUN_NAME_PATTERN
from seal.settings import AdaptationSpec, RunSpec
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings
from seal.structural import structural_schema
from seal.yaml_files import Tree

GROUP, VERSION = API_VERSION.split("/")
MAX_RUN_NAME_CHARACTERS = 40
MUTABLE = frozenset({"suspend", "queueName", "ttlSecondsAfterFinished", "cancelled"})
"""Fields of a spec that may be changed; all others are what the results rest on."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object."""

    name: str
    plural: str
    short_name: str
    spec: type[BaseModel]
    """What `seal run` takes."""
    cluster: type[ClusterSettings]
    """What only a cluster has."""
    columns: tuple[tuple[str, str, str], ...]
    """(header, type, path) of what `kubectl get` shows of this kind, between phase and progress."""

    @property
    def file_name(self) -> str:
        """Name of its definition's file."""
        return f"{self.plural}.{GROUP}.json"


KINDS = (
    Kind(
        name=RUN_KIND,
        plural="restemruns",
        short_name="rer",
        spec=RunSpec,
        cluster=ClusterSettings,
        columns=(
            ("Round", "string", ".status.columns.round"),
            ("Reward", "string", ".status.columns.reward"),
        ),
    ),
    Kind(
        name=ADAPTATION_KIND,
        plural="adaptations",
        short_name="adapt",
        spec=AdaptationSpec,
        cluster=AdaptationClusterSettings,
        columns=(
            ("Stage", "string", ".status.columns.stage"),
            ("Gain", "string", ".status.columns.gain"),
        ),
    ),
)


def definition(kind: Kind) -> Tree:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["seal"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "selectableFields": [
                        {"jsonPath": path}
                        for path in (".status.phase", ".spec.suspend", ".spec.queueName")
                    ],
                    "additionalPrinterColumns": list(_columns(kind)),
                    "schema": {"openAPIV3Schema": _object_schema(kind)},
                }
            ],
        },
    }


def definition_text(kind: Kind) -> str:
    """The text of a definition's file."""
    return json.dumps(definition(kind), indent=1, ensure_ascii=False) + "\n"


def _columns(kind: Kind) -> Iterator[Tree]:
    """What `kubectl get` shows, and with `-o wide` why it waits and for what."""
    shown = (
        ("Phase", "string", ".status.phase"),
        *kind.columns,
        ("Progress", "integer", ".status.progress.percent"),
    )
    wide = (
        ("ETA", "integer", ".status.progress.etaSeconds"),
        ("Reason", "string", '.status.conditions[?(@.type=="Progressing")].reason'),
        ("Queue", "string", ".spec.queueName"),
    )
    for name, type, path in shown:
        yield {"name": name, "type": type, "jsonPath": path}
    for name, type, path in wide:
        yield {"name": name, "type": type, "jsonPath": path, "priority": 1}
    yield {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _object_schema(kind: Kind) -> Tree:
    """The whole object. It has a spec, be it an empty one, as a run's profile has all of it.

    One that was left out could be added later: rules compare fields with those of the spec before.
    """
    name = {"type": "string", "maxLength": MAX_RUN_NAME_CHARACTERS, "pattern": RUN_NAME_PATTERN}
    spec = _spec_schema(kind)
    return {
        "type": "object",
        "description": (kind.spec.__doc__ or "").strip(),
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": _status_schema(),
        },
    }


def _spec_schema(kind: Kind) -> Tree:
    """The algorithm's fields, those of the cluster, and the rules that keep them."""
    spec, cluster = structural_schema(kind.spec), structural_schema(kind.cluster)
    properties = {**_fields(spec), **_fields(cluster)}
    rules = [
        {
            # The server looks at a field as rarely as may be: all rules hold for each status, too
            "rule": f"has(self.{name})"
            f" ? has(oldSelf.{name}) && self.{name} == oldSelf.{name}"
            f" : !has(oldSelf.{name})",
            "message": f"spec.{name} cannot be changed: make another {kind.name} with it",
            "fieldPath": f".{name}",
        }
        for name in properties
        if name not in MUTABLE
    ]
    if "cancelled" in properties:
        rules.append(
            {
                "rule": "!has(oldSelf.cancelled) || !oldSelf.cancelled"
                " || (has(self.cancelled) && self.cancelled)",
                "message": "a cancellation cannot be taken back: make another Adaptation",
                "fieldPath": ".cancelled",
            }
        )
    return {**spec, "properties": properties, "x-kubernetes-validations": rules}


def _status_schema() -> Tree:
    """The status; its end is final.

    It is `atomic`, as it is replaced whole: a server that kept for each of its fields who wrote it
    would take a quarter longer for each write, and send a third more to all who watch.
    """
    schema = structural_schema(ObjectStatus)
    conditions = _fields(schema)["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    final = ", ".join(f"'{phase}'" for phase in Phase if phase.terminal)
    return {
        **schema,
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": [
            {
                "rule": f"!has(oldSelf.phase) || !(oldSelf.phase in [{final}])"
                " || (has(self.phase) && self.phase == oldSelf.phase)",
                "message": "the phase is final",
                "fieldPath": ".phase",
            }
        ],
    }


def _fields(schema: Mapping[str, object]) -> dict[str, Tree]:
    return cast("dict[str, Tree]", schema["properties"])


if __name__ == "__main__":
    for each in KINDS:
        (Path(sys.argv[1]) / each.file_name).write_text(definition_text(each), encoding="utf-8")
