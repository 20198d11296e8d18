"""Reading YAML that people wrote: one mapping, no key twice, and every refusal names the line."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from seal.errors import InvalidInput
from seal.files import file_errors

STANDARD_INPUT = Path("-")
"""A manifest of this path is read from standard input."""
MAX_CONFIG_BYTES = 1 << 20
"""A larger file is no manifest."""

Tree = dict[str, object]
"""Nested mapping as YAML gives it."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the trap that the last of two equal keys wins silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):  # `{{ name }}` is a mapping as a key
                problem = "a key is a list or a mapping; is it a template that was not filled in?"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path, name: str) -> str:
    """Content of a manifest; `name` is what errors call it.

    Raises NotFound for a missing file, InvalidInput for a directory, a large file or no text.
    """
    with file_errors(path):
        if path == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1)
        else:
            if path.is_dir():
                raise InvalidInput(f"{name} is a directory", remedy="give a YAML file")
            with path.open("rb") as handle:
                content = handle.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise InvalidInput(
            f"{name} has more than {MAX_CONFIG_BYTES} bytes",
            remedy="give the manifest, not the dataset",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} is not UTF-8 at byte {error.start}", remedy="save it as UTF-8 text"
        ) from error


def parse_yaml(text: str, *, where: str) -> Tree:
    """The one mapping that a YAML text holds; empty for an empty text.

    Raises InvalidInput naming `where` and the line.
    """
    try:
        trees = list(yaml.load_all(text, Loader=_UniqueKeyLoader))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        raise InvalidInput(
            f"{where} is no valid YAML: {_yaml_problem(error)}", remedy="correct that line"
        ) from error
    except RecursionError as error:
        raise InvalidInput(
            f"{where} is nested too deeply", remedy="write the manifest plainly"
        ) from error
    trees = [tree for tree in trees if tree is not None]
    if len(trees) > 1:
        raise InvalidInput(
            f"{where} holds {len(trees)} YAML documents; a run is one",
            remedy="give each run a file of its own, without `---` between them",
        )
    tree = trees[0] if trees else None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InvalidInput(
            f"{where} holds no mapping of fields",
            remedy="write `field: value` lines",
        )
    return tree


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]
