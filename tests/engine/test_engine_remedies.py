"""Remedies that name a setting of the engine can be followed as they are written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from seal.config import load_engine_settings
from seal.options import ServiceOptions
from seal.remedies import engine_setting
from seal.settings import EngineSettings

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for room in ("seal", "controller_svc", "trainer_svc")
    for path in (ROOT / room).rglob("*.py")
)


def nodes() -> Iterator[ast.AST]:
    for path in SOURCES:
        yield from ast.walk(ast.parse(path.read_text()))


def test_every_setting_that_a_remedy_names_is_one_of_the_engine():
    named = [
        node.args[0].value
        for node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "engine_setting"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(named) >= 8
    assert set(named) <= set(EngineSettings.model_fields)
    with pytest.raises(ValueError, match="row_tokens"):
        engine_setting("row_tokens")


def test_no_text_names_a_setting_in_a_way_that_nobody_can_write():
    texts = [
        node.value
        for node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if re.search(r"(?<!seal\.)\bengine\.[a-z]+_[a-z]", text)] == []


@pytest.mark.parametrize("name", sorted(EngineSettings.model_fields))
def test_what_a_remedy_says_can_be_given_to_a_laptops_engine_and_to_a_service(name: str):
    value = {"gradient_checkpointing": "off", "dtype": "float32", "device": "meta"}.get(name, "7")
    said = engine_setting(name, value)
    found = re.search(r"--engine (\w+)=(\w+), a service: (--[a-z-]+) (\w+)\)", said)
    assert found is not None
    written, on_a_laptop, flag, of_a_service = found.groups()
    laptop = load_engine_settings("published", {written: on_a_laptop})
    service = ServiceOptions.parse(["--artifacts", "store", flag, of_a_service])
    assert str(getattr(laptop, name)).removesuffix(".0") == value
    assert getattr(laptop, name) == getattr(service, name)
    assert engine_setting(name) == (
        f"{written} of the engine (--engine {written}=..., a service: {flag})"
    )
