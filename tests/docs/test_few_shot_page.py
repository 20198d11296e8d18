"""docs/few-shot.md says what the domain does."""

from __future__ import annotations

from pathlib import Path

from seal.domains.arc.augmentations import GEOMETRIES
from seal.domains.arc.edits import MAX_EDIT_EPOCHS, MAX_RATE, DataGeneration, Training
from seal.domains.arc.training_sets import MAX_ROW_VISITS, MAX_ROWS
from seal.settings import DOMAIN_OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "few-shot.md").read_text(encoding="utf-8")


def test_every_key_of_an_edit_is_in_its_table() -> None:
    for name in DataGeneration.model_fields:
        assert f"| `data_generation.{name}` |" in PAGE
    for name in Training.model_fields:
        assert f"| `training.{name}` |" in PAGE


def test_its_bounds_are_those_of_the_code() -> None:
    assert MAX_RATE == 2e-2
    assert "1e-6 to 2e-2" in PAGE
    assert f"1 to {MAX_EDIT_EPOCHS} |" in PAGE
    assert f"longer than {MAX_ROW_VISITS} rows times epochs" in PAGE
    assert f"at most {MAX_ROWS}." in PAGE
    assert (
        len(GEOMETRIES) == 7
    )  # with the test as it is eight views, those beyond are in other colours


def test_every_layout_is_told() -> None:
    for layout in DOMAIN_OPTIONS["arc"].question_formats:
        assert f"`{layout}`" in PAGE
