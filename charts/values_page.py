"""charts/seal/README.md: the chart's values with their defaults, from the comments of values.yaml.

A comment right above a value is about that value; above a group of values it is the group's
introduction. `make chart-docs` writes the page; a test keeps it current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "seal"
HEAD = """# Chart seal: its values

Made from the comments in `values.yaml` by `make chart-docs`. How to install it, and which values
matter: [docs/install.md](../../docs/install.md). `values.schema.json` refuses others by name.

Profiles: `values-kind.yaml` (a laptop's cluster), `values-gpu.yaml` (a model of 7B on GPUs),
`values-prod.yaml` (a bucket, standbys, budgets, alerts; on top of another one),
`values-openshift.yaml` (users that the cluster chooses; on top of another one).
"""
WHOLE = ("resources",)
"""Mappings that are one value: Kubernetes' own."""


@dataclass(frozen=True)
class Value:
    """A value, or a group of them where `default` is None."""

    path: str
    said: str
    """The comment above it, in one line."""
    default: str | None
    """As JSON, which is YAML."""


def values(text: str) -> Iterator[Value]:
    """All of a values file, in its order; a group comes before what is in it."""
    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from _of(root, "", text.splitlines())


def _of(group: yaml.MappingNode, path: str, lines: list[str]) -> Iterator[Value]:
    for key, value in group.value:
        name = f"{path}{key.value}"
        said = _comment_above(lines, key.start_mark.line, key.start_mark.column)
        grouped = isinstance(value, yaml.MappingNode) and value.value and key.value not in WHOLE
        if grouped and not value.flow_style:
            yield Value(name, said, None)
            yield from _of(value, f"{name}.", lines)
        else:
            yield Value(name, said, json.dumps(_plain(value)))


def _plain(node: yaml.Node) -> object:
    return yaml.safe_load(yaml.serialize(node))


def _comment_above(lines: list[str], line: int, column: int) -> str:
    """The comment that ends right above a line, at the same column."""
    found: list[str] = []
    while line > 0 and lines[line - 1].startswith(" " * column + "# "):
        line -= 1
        found.insert(0, lines[line].strip()[2:])
    return " ".join(found)


def values_page(text: str) -> str:
    """The page as Markdown; top-level groups are its sections, and what is in none comes first."""
    general = _head("## General", "")
    sections: list[str] = []
    for value in values(text):
        row = f"| `{value.path}` | {_code(value.default)} | {_cell(value.said)} |"
        if "." in value.path:
            sections.append(row)
        elif value.default is None:
            sections += ["", *_head(f"## {value.path}", value.said)]
        else:
            general.append(row)
    return "\n".join((HEAD, *general, *sections, ""))


def _head(title: str, said: str) -> list[str]:
    table = ["| value | default | what it is |", "|---|---|---|"]
    return [title, "", *([said, ""] if said else []), *table]


def _code(default: str | None) -> str:
    return "" if default is None else f"`{_cell(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(values_page((CHART / "values.yaml").read_text(encoding="utf-8")))
