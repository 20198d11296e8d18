"""The failure table: every test that it names exists, and the documentation shows it as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from seal.failures import FAILURES, markdown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("test", [test for row in FAILURES for test in row.tests])
def test_every_test_of_the_failure_table_exists(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_row_of_the_failure_table_has_a_test() -> None:
    assert [row.happened for row in FAILURES if not row.tests] == []


def test_the_documentation_shows_the_failure_table_as_it_is() -> None:
    shown = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert markdown() in shown, "put what `python -m seal.failures` prints into docs/concepts.md"
